"""The recipe is a Dockerfile that nobody can understand in two ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.build import DOCKERFILE, default_recipe
from containers.errors import RecipeError
from containers.recipe import (
    Copy,
    EntryPoint,
    Env,
    Instruction,
    Label,
    Recipe,
    User,
    WorkingFolder,
    parse,
)

HEAD = "ARG BASE=python:3.11\nFROM ${BASE}\n"

parts = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,8}", fullmatch=True)
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
values = st.text(printable, max_size=12).filter(lambda text: not set(text) & set('"\\$'))
instructions = st.one_of(
    st.builds(Copy, paths, paths.map("/{}".format)),
    st.builds(Copy, paths.map("{}/".format), paths.map("/{}/".format)),
    st.builds(Env, names, values),
    st.builds(Label, names, values),
    st.builds(
        lambda user, group: User(f"{user}:{group}"), st.integers(0, 10**8), st.integers(0, 9)
    ),
    st.just(WorkingFolder("/")),
    st.lists(st.text(printable, min_size=1), min_size=1).map(
        lambda command: EntryPoint(tuple(command))
    ),
)


def written(instruction: Instruction) -> str:
    match instruction:
        case Copy(source, target):
            return f"COPY {source} {target}"
        case Env(name, value):
            return f'ENV {name}="{value}"'
        case Label(name, value):
            return f'LABEL {name}="{value}"'
        case User(user):
            return f"USER {user}"
        case WorkingFolder(path):
            return f"WORKDIR {path}"
        case EntryPoint(command):
            return f"ENTRYPOINT {json.dumps(command)}"


def test_the_shipped_recipe_starts_the_agent_as_nobody_in_particular() -> None:
    recipe = default_recipe()
    assert "@sha256:" in recipe.default_base
    assert User("10001:10001") in recipe.instructions
    assert recipe.instructions[-1] == EntryPoint(("python3", "-I", "/opt/auditkit/agent.py"))
    sources = [one.source for one in recipe.instructions if isinstance(one, Copy)]
    assert sources == ["packages/", "code/", "agent.py"]


@given(st.lists(instructions, max_size=6))
def test_what_is_written_in_the_subset_is_understood_as_it_was_meant(
    meant: list[Instruction],
) -> None:
    text = HEAD + "".join(f"{written(one)}\n# a comment\n\n" for one in meant)
    assert parse(text) == Recipe("python:3.11", tuple(meant))


def refusal(text: str) -> str | None:
    try:
        parse(text)
    except RecipeError as error:
        return str(error)
    return None


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_one_clear_error(text: str) -> None:
    for attempt in (text, HEAD + text):
        assert "of the recipe: expected" in (refusal(attempt) or "of the recipe: expected")


@given(st.integers(0, 400), st.characters())
def test_a_changed_character_never_becomes_another_error(place: int, character: str) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    place %= len(text)
    found = refusal(text[:place] + character + text[place + 1 :])
    assert found is None or "expected" in found


@pytest.mark.parametrize(
    "line",
    [
        "RUN pip install torch",
        "run true",
        "ADD https://example.org/x /x",
        "COPY --chown=1:1 a /a",
        "COPY --from=other a /a",
        "COPY a b /c/",
        "COPY a c",
        "COPY ../secret /secret",
        "COPY a/../../b /b",
        "COPY a/ /b",
        "COPY a /b/",
        "COPY * /all",
        "COPY a[0] /a",
        'COPY ["a", "/a"]',
        "COPY <<EOF /a",
        "COPY $HOME /a",
        "COPY . /",
        "COPY a /../b",
        "ENV PATH=$PATH:/x",
        "ENV PATH=${PATH}",
        "ENV NAME value",
        "ENV A=1 B=2",
        "ENV A='1'",
        'ENV A="\\n"',
        "ENV =1",
        "LABEL a",
        "USER root",
        "USER 10001",
        "USER $USER",
        "WORKDIR /app",
        "WORKDIR app",
        "ENTRYPOINT python3 agent.py",
        "ENTRYPOINT []",
        'ENTRYPOINT [""]',
        'ENTRYPOINT ["python3", 1]',
        'ENTRYPOINT ["\\ud800"]',
        'ENTRYPOINT ["a\\u0000b"]',
        'ENTRYPOINT {"a": 1}',
        "ENTRYPOINT " + "[" * 50_000,
        "ENTRYPOINT " + "[" * 100_000,
        'CMD ["x"]',
        'SHELL ["/bin/sh"]',
        "FROM scratch",
        "ARG OTHER=1",
        "EXPOSE 80",
        "ENV A=1 \\",
        "\tENV A=1",
        "ENV\u00a0A=1",
        "ENV A=1\r",
        "# escape=`",
        "#syntax=docker/dockerfile:1",
        "COPY a /a\0",
    ],
)
def test_everything_else_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(RecipeError, match=r"line 4 of the recipe|at most"):
        parse(f"{HEAD}ENV A=1\n{line}\nENV B=2\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "FROM python:3.11\n",
        "FROM ${BASE}\n",
        "ARG BASE=python:3.11\n",
        "ARG BASE\nFROM ${BASE}\n",
        "ARG BASE=a b\nFROM ${BASE}\n",
        "ARG BASE=a\nFROM ${BASE} AS builder\n",
        "ARG BASE=a\nFROM $BASE\n",
        "ARG BASE=a\nFROM --platform=linux/arm64 ${BASE}\n",
        "ENV A=1\nARG BASE=a\nFROM ${BASE}\n",
    ],
)
def test_the_base_is_an_argument_and_comes_first(text: str) -> None:
    with pytest.raises(RecipeError, match="of the recipe: expected"):
        parse(text)
