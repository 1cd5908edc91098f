"""Checkpoints travel as signed notes: what a known key vouches for is believed, nothing else."""

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.evidence.errors import (
    AmbiguousKeyError,
    CheckpointFormatError,
    CosignatureTimeError,
    EvidenceError,
    KeyFormatError,
    NoteFormatError,
    SignatureError,
    UnsignedNoteError,
    VerifierKeyError,
    WeakKeyError,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.notes import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    MAX_TIMESTAMP,
    Checkpoint,
    Note,
    NoteSignature,
    SignatureType,
    VerifierKey,
    cosign,
    parse,
    parse_checkpoint,
    sign,
    verify,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "notes.json").read_text())
ORIGIN = "auditor.example/sessions/s1"
COSIGNER = "auditor.example/cosigner"
ROOT = hashlib.sha256(b"root").digest()
TEXT = Checkpoint(ORIGIN, 7, ROOT).to_text()
SESSION_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
AUDITOR_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"a" * 32))
STRANGER_KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"x" * 32))
SESSION = VerifierKey.ed25519(ORIGIN, SESSION_KEY.public)
AUDITOR = VerifierKey.cosignature(COSIGNER, AUDITOR_KEY.public)
SIGNED = sign(TEXT, ORIGIN, SESSION_KEY)


def line(name, key_hash, signature):
    return f"— {name} {base64.b64encode(key_hash + signature).decode()}\n"


@pytest.mark.parametrize("case", VECTORS["signed"], ids=lambda case: case["id"])
def test_notes_of_other_implementations_verify(case):
    data = case["note"].encode()
    keys = [VerifierKey.parse(text) for text in case["verifier_keys"]]
    assert [key.encode() for key in keys] == case["verifier_keys"]
    verified = verify(data, keys)
    assert [found.key for found in verified.signatures] == keys
    assert verified.text == case["note"].rpartition("\n\n")[0] + "\n"
    assert parse(data).to_bytes() == data


def test_our_notes_are_those_of_other_implementations():
    case = VECTORS["signing"]
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["seed"])))
    assert sign(case["text"], case["name"], key).to_bytes() == case["note"].encode()


def test_the_last_empty_line_ends_the_text():
    case = VECTORS["several_empty_lines"]
    note = parse(case["note"].encode())
    assert note.text == case["text"]
    assert note.signatures[0].name == "quasimodo.example/salvatore"


def test_a_published_cosigned_checkpoint_is_read():
    case = VECTORS["cosigned"]
    note = parse(case["note"].encode())
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size) == (case["origin"], case["size"])
    assert base64.b64encode(checkpoint.root).decode() == case["root"]
    cosignature = note.signatures[1]
    assert cosignature.name == case["cosigner"]
    assert int.from_bytes(cosignature.signature[:8], "big") == case["timestamp"]
    assert len(cosignature.signature) == 8 + 64


def test_the_session_signs_and_the_auditor_cosigns():
    note = cosign(parse(SIGNED.to_bytes()), COSIGNER, AUDITOR_KEY, 1_700_000_000)
    verified = verify(note.to_bytes(), [SESSION, AUDITOR])
    assert verified.text == TEXT
    assert parse_checkpoint(verified.text) == Checkpoint(ORIGIN, 7, ROOT)
    assert [tuple(found) for found in verified.signatures] == [
        (SESSION, None),
        (AUDITOR, 1_700_000_000),
    ]
    assert verified.signed_by(AUDITOR) == (AUDITOR, 1_700_000_000)
    assert verify(note.to_bytes(), [SESSION]).signed_by(AUDITOR) is None


def test_a_cosignature_covers_header_time_and_text():
    note = cosign(SIGNED, COSIGNER, AUDITOR_KEY, 1679315147)
    stamped = note.signatures[1].signature
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    assert stamped[:8] == (1679315147).to_bytes(8, "big")
    AUDITOR_KEY.public.verify(stamped[8:], message)


def test_the_key_hash_covers_name_type_and_key():
    identity = COSIGNER.encode() + b"\x0a\x04" + AUDITOR_KEY.public.raw
    assert AUDITOR.key_hash == hashlib.sha256(identity).digest()[:4]
    plain = VerifierKey.ed25519(COSIGNER, AUDITOR_KEY.public)
    identity = COSIGNER.encode() + b"\x0a\x01" + AUDITOR_KEY.public.raw
    assert plain.key_hash == hashlib.sha256(identity).digest()[:4]


def test_a_cosignature_does_not_pass_for_a_signature():
    cosigned = cosign(SIGNED, COSIGNER, AUDITOR_KEY, 5).signatures[1]
    plain = VerifierKey.ed25519(COSIGNER, AUDITOR_KEY.public)
    relabelled = Note(TEXT, (NoteSignature(COSIGNER, plain.key_hash, cosigned.signature[8:]),))
    with pytest.raises(SignatureError):
        verify(relabelled.to_bytes(), [plain])


def test_an_earlier_time_cannot_be_written_into_a_cosignature():
    honest = cosign(SIGNED, COSIGNER, AUDITOR_KEY, 5_000)
    stamped = (4_000).to_bytes(8, "big") + honest.signatures[1].signature[8:]
    forged = replace(honest, signatures=(NoteSignature(COSIGNER, AUDITOR.key_hash, stamped),))
    with pytest.raises(SignatureError, match=COSIGNER):
        verify(forged.to_bytes(), [AUDITOR])


@pytest.mark.parametrize("timestamp", [-1, MAX_TIMESTAMP + 1])
def test_a_time_outside_the_range_is_not_signed(timestamp):
    with pytest.raises(CosignatureTimeError):
        cosign(SIGNED, COSIGNER, AUDITOR_KEY, timestamp)


@pytest.mark.parametrize("timestamp", [0, MAX_TIMESTAMP])
def test_the_whole_range_of_times_is_signed(timestamp):
    note = cosign(SIGNED, COSIGNER, AUDITOR_KEY, timestamp)
    assert verify(note.to_bytes(), [AUDITOR]).signatures == ((AUDITOR, timestamp),)


def test_a_time_beyond_the_range_is_refused_even_if_signed():
    timestamp = 2**63
    signature = AUDITOR_KEY.sign(f"cosignature/v1\ntime {timestamp}\n{TEXT}".encode())
    stamped = timestamp.to_bytes(8, "big") + signature
    note = Note(TEXT, (NoteSignature(COSIGNER, AUDITOR.key_hash, stamped),))
    with pytest.raises(CosignatureTimeError):
        verify(note.to_bytes(), [AUDITOR])


def test_only_checkpoints_are_cosigned():
    note = sign("a letter\n", ORIGIN, SESSION_KEY)
    with pytest.raises(CheckpointFormatError):
        cosign(note, COSIGNER, AUDITOR_KEY, 5)
    signature = AUDITOR_KEY.sign(b"cosignature/v1\ntime 5\na letter\n")
    stamped = (5).to_bytes(8, "big") + signature
    forged = replace(note, signatures=(NoteSignature(COSIGNER, AUDITOR.key_hash, stamped),))
    with pytest.raises(CheckpointFormatError):
        verify(forged.to_bytes(), [AUDITOR])


def test_a_key_that_signs_twice_counts_once():
    twice = replace(SIGNED, signatures=SIGNED.signatures * 2)
    assert len(verify(twice.to_bytes(), [SESSION]).signatures) == 1


@pytest.mark.parametrize("times", [(200, 100), (100, 200)])
def test_of_several_cosignatures_the_earliest_stands(times):
    note = SIGNED
    for timestamp in times:
        note = cosign(note, COSIGNER, AUDITOR_KEY, timestamp)
    assert verify(note.to_bytes(), [AUDITOR]).signatures == ((AUDITOR, 100),)


def test_unknown_signatures_are_ignored():
    lines = [
        NoteSignature("stranger.example", b"\1\2\3\4", b"anything"),
        NoteSignature(ORIGIN, b"\1\2\3\4", b"same name, other hash"),
        NoteSignature("stranger.example", SESSION.key_hash, b"same hash, other name"),
    ]
    note = replace(SIGNED, signatures=(*lines, *SIGNED.signatures))
    assert verify(note.to_bytes(), [SESSION]).signatures == ((SESSION, None),)


def test_signatures_of_types_to_come_are_ignored_and_their_keys_are_refused():
    """ML-DSA-44 cosignatures (type 0x06) are what a witness of tomorrow will send."""
    future = NoteSignature(COSIGNER, b"\6\6\6\6", bytes(8 + 2420))
    note = cosign(
        replace(SIGNED, signatures=(future, *SIGNED.signatures)), COSIGNER, AUDITOR_KEY, 5
    )
    verified = verify(note.to_bytes(), [SESSION, AUDITOR])
    assert [found.key for found in verified.signatures] == [SESSION, AUDITOR]
    with pytest.raises(VerifierKeyError, match="0x01 or 0x04"):
        VerifierKey.parse(encoded_key(COSIGNER, b"\6" + bytes(1312)))


@pytest.mark.parametrize("length", [0, 7, 8, 71, 73, 80])
def test_a_cosignature_has_72_bytes(length):
    whole = cosign(SIGNED, COSIGNER, AUDITOR_KEY, 5).signatures[1].signature
    data = (whole + bytes(8))[:length] or b"\0"
    note = replace(SIGNED, signatures=(NoteSignature(COSIGNER, AUDITOR.key_hash, data),))
    with pytest.raises((SignatureError, CosignatureTimeError)):
        verify(note.to_bytes(), [AUDITOR])


def test_a_second_bad_signature_by_a_known_key_spoils_the_note_too():
    bad = NoteSignature(ORIGIN, SESSION.key_hash, bytes(64))
    for lines in [(bad, *SIGNED.signatures), (*SIGNED.signatures, bad)]:
        with pytest.raises(SignatureError):
            verify(replace(SIGNED, signatures=lines).to_bytes(), [SESSION])


def test_a_cosignature_does_not_outlive_an_extension_line():
    note = cosign(sign(TEXT + "extension\n", ORIGIN, SESSION_KEY), COSIGNER, AUDITOR_KEY, 5)
    shortened = replace(note, text=TEXT, signatures=note.signatures[1:])
    with pytest.raises(SignatureError):
        verify(shortened.to_bytes(), [AUDITOR])


def test_a_bad_signature_by_a_known_key_spoils_the_note():
    bad = NoteSignature(ORIGIN, SESSION.key_hash, STRANGER_KEY.sign(TEXT.encode()))
    for lines in [(bad,), (bad, *SIGNED.signatures), (*SIGNED.signatures, bad)]:
        with pytest.raises(SignatureError, match=ORIGIN):
            verify(replace(SIGNED, signatures=lines).to_bytes(), [SESSION])


def test_a_note_without_a_known_signature_is_refused():
    stranger = VerifierKey.ed25519("stranger.example", STRANGER_KEY.public)
    for keys in ([], [stranger], [AUDITOR]):
        with pytest.raises(UnsignedNoteError):
            verify(SIGNED.to_bytes(), keys)


def test_changed_text_is_refused():
    forged = replace(SIGNED, text=TEXT.replace("\n7\n", "\n8\n"))
    with pytest.raises(SignatureError):
        verify(forged.to_bytes(), [SESSION])


def test_two_keys_with_one_name_and_hash_are_refused(monkeypatch):
    other = VerifierKey.ed25519(ORIGIN, STRANGER_KEY.public)
    assert verify(SIGNED.to_bytes(), [SESSION, SESSION, other]).signed_by(SESSION)
    monkeypatch.setattr(VerifierKey, "key_hash", SESSION.key_hash)
    with pytest.raises(AmbiguousKeyError):
        verify(SIGNED.to_bytes(), [SESSION, other])


GOOD_LINE = line(ORIGIN, b"\1\2\3\4", b"signature")

MALFORMED_NOTES = {
    "nothing": b"",
    "text alone": b"text\n",
    "no empty line": f"text\n{GOOD_LINE}".encode(),
    "no signature": b"text\n\n",
    "no signature, two empty lines": b"text\n\n\n",
    "signatures alone": f"\n{GOOD_LINE}".encode(),
    "no newline at the end": f"text\n\n{GOOD_LINE}".encode()[:-1],
    "an empty line at the end": f"text\n\n{GOOD_LINE}\n".encode(),
    "an empty line between signatures": f"text\n\n{GOOD_LINE}\nno dash\n".encode(),
    "carriage returns": f"text\r\n\r\n{GOOD_LINE}".encode(),
    "a tab": f"te\txt\n\n{GOOD_LINE}".encode(),
    "a null character": f"te\0xt\n\n{GOOD_LINE}".encode(),
    "an escape character": f"te\x1bxt\n\n{GOOD_LINE}".encode(),
    "a control character in a signature": f"text\n\n{GOOD_LINE[:-1]}\x01\n".encode(),
    "not UTF-8": b"te\xffxt\n\n" + GOOD_LINE.encode(),
    "an encoded surrogate": b"te\xed\xa0\x80xt\n\n" + GOOD_LINE.encode(),
    "a hyphen for the dash": f"text\n\n{GOOD_LINE.replace('—', '-')}".encode(),
    "no space after the dash": f"text\n\n{GOOD_LINE.replace('— ', '—')}".encode(),
    "two spaces after the dash": f"text\n\n{GOOD_LINE.replace('— ', '—  ')}".encode(),
    "no name": f"text\n\n{line('', b'1234', b'x')}".encode(),
    "a name with a plus": f"text\n\n{line('a+b', b'1234', b'x')}".encode(),
    "a name with a space": f"text\n\n{line('a b', b'1234', b'x')}".encode(),
    "a name with a no-break space": ("text\n\n" + line("a\u00a0b", b"1234", b"x")).encode(),
    "a name with an ideographic space": ("text\n\n" + line("a\u3000b", b"1234", b"x")).encode(),
    "a name with a line separator": ("text\n\n" + line("a\u2028b", b"1234", b"x")).encode(),
    "a name of a thousand and one letters": f"text\n\n{line('a' * 1001, b'1234', b'x')}".encode(),
    "a key hash alone": f"text\n\n{line('a', b'1234', b'')}".encode(),
    "less than a key hash": f"text\n\n{line('a', b'123', b'')}".encode(),
    "no signature after the name": "text\n\n— a\n".encode(),
    "an empty signature after the name": "text\n\n— a \n".encode(),
    "base64 without padding": "text\n\n— a MTIzNHg\n".encode(),
    "base64 with spare bits": "text\n\n— a MTIzNHh=\n".encode(),
    "URL-safe base64": "text\n\n— a MTIzNP__\n".encode(),
    "a space at the end of a line": "text\n\n— a MTIzNHg= \n".encode(),
    "text after the signature": "text\n\n— a MTIzNHg= more\n".encode(),
    "too many signatures": f"text\n\n{GOOD_LINE * (MAX_SIGNATURES + 1)}".encode(),
    "a huge text": b"x" * MAX_NOTE_BYTES + f"\n\n{GOOD_LINE}".encode(),
}


@pytest.mark.parametrize("data", MALFORMED_NOTES.values(), ids=MALFORMED_NOTES.keys())
def test_malformed_notes_are_refused(data):
    with pytest.raises(NoteFormatError):
        parse(data)
    with pytest.raises(NoteFormatError):
        verify(data, [SESSION])


WELL_FORMED_NOTES = {
    "an empty line of text": ("\n", f"\n\n{GOOD_LINE}"),
    "empty lines at the end of the text": ("text\n\n\n", f"text\n\n\n\n{GOOD_LINE}"),
    "empty lines at the start": ("\n\ntext\n", f"\n\ntext\n\n{GOOD_LINE}"),
    "text that looks like a signature": (f"a\n\n{GOOD_LINE}", f"a\n\n{GOOD_LINE}\n{GOOD_LINE}"),
    "a delete character": ("a\x7fb\n", f"a\x7fb\n\n{GOOD_LINE}"),
    "an empty line at the start of every line": ("\n\n\n", f"\n\n\n\n{GOOD_LINE}"),
    "a signature of a type to come": (
        "text\n",
        f"text\n\n{line('example.com/pq', b'1234', bytes(8 + 2420))}",
    ),
    "characters that only look like spaces or newlines": (
        "a\u2028b\u0085c\u200bd\n",
        f"a\u2028b\u0085c\u200bd\n\n{GOOD_LINE}",
    ),
    "a name with every other sign": ("text\n", f"text\n\n{line('a/b—:=@é', b'1234', b'x')}"),
    "a base64 signature with both special signs": (
        "text\n",
        f"text\n\n{line('a', b'1234', bytes([0xFB, 0xFF, 0xFE]))}",
    ),
    "as many signatures as allowed": ("text\n", f"text\n\n{GOOD_LINE * MAX_SIGNATURES}"),
}


@pytest.mark.parametrize("case", WELL_FORMED_NOTES.values(), ids=WELL_FORMED_NOTES.keys())
def test_unusual_notes_are_read(case):
    text, whole = case
    note = parse(whole.encode())
    assert note.text == text
    assert note.to_bytes() == whole.encode()


UNSIGNABLE_TEXTS = {
    "no newline at the end": "text",
    "nothing": "",
    "a tab": "te\txt\n",
    "a lone surrogate": "te\ud800xt\n",
    "too long": "x" * MAX_NOTE_BYTES + "\n",
}


@pytest.mark.parametrize("text", UNSIGNABLE_TEXTS.values(), ids=UNSIGNABLE_TEXTS.keys())
def test_text_that_a_note_cannot_carry_is_not_signed(text):
    with pytest.raises(NoteFormatError):
        sign(text, ORIGIN, SESSION_KEY)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "\ud800", "ä" * 501])
def test_names_that_a_key_cannot_have_are_refused(name):
    with pytest.raises(VerifierKeyError):
        VerifierKey.ed25519(name, SESSION_KEY.public)
    with pytest.raises(VerifierKeyError):
        sign(TEXT, name, SESSION_KEY)
    with pytest.raises(VerifierKeyError):
        cosign(SIGNED, name, AUDITOR_KEY, 5)


def test_a_full_note_has_no_room_for_a_cosignature():
    full = replace(SIGNED, signatures=SIGNED.signatures * MAX_SIGNATURES)
    with pytest.raises(NoteFormatError):
        cosign(full, COSIGNER, AUDITOR_KEY, 5)


def encoded_key(name, material, key_hash=None):
    computed = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]
    return f"{name}+{(key_hash or computed).hex()}+{base64.b64encode(material).decode()}"


RAW = SESSION_KEY.public.raw

MALFORMED_VERIFIER_KEYS = {
    "nothing": ("", VerifierKeyError),
    "a name alone": ("name", VerifierKeyError),
    "no key": ("name+01020304", VerifierKeyError),
    "an empty key": (encoded_key("name", b""), VerifierKeyError),
    "no name": (encoded_key("", b"\1" + RAW), VerifierKeyError),
    "a name with a space": (encoded_key("a b", b"\1" + RAW), VerifierKeyError),
    "the hash of another key": (encoded_key("name", b"\1" + RAW, b"1234"), VerifierKeyError),
    "the hash in upper case": (
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        VerifierKeyError,
    ),
    "ECDSA": (encoded_key("name", b"\2" + RAW), VerifierKeyError),
    "ML-DSA": (encoded_key("name", b"\6" + bytes(1312)), VerifierKeyError),
    "a short key": (encoded_key("name", b"\1" + RAW[:31]), KeyFormatError),
    "a long key": (encoded_key("name", b"\1" + RAW + b"\0"), KeyFormatError),
    "a weak key": (encoded_key("name", b"\1" + bytes(32)), WeakKeyError),
    "not base64": ("name+01020304+????", VerifierKeyError),
    "too long": ("n" * 3_000, VerifierKeyError),
}


@pytest.mark.parametrize(
    "case", MALFORMED_VERIFIER_KEYS.values(), ids=MALFORMED_VERIFIER_KEYS.keys()
)
def test_malformed_verifier_keys_are_refused(case):
    text, error = case
    with pytest.raises(error):
        VerifierKey.parse(text)


@pytest.mark.parametrize("kind", list(SignatureType))
def test_verifier_keys_survive_their_encoding(kind):
    key = VerifierKey("auditor.example/ключ", kind, SESSION_KEY.public)
    assert VerifierKey.parse(key.encode()) == key


ROOT_TEXT = base64.b64encode(ROOT).decode()

MALFORMED_CHECKPOINTS = {
    "nothing": "",
    "an empty origin": f"\n7\n{ROOT_TEXT}\n",
    "no root": "origin\n7\n",
    "no newline at the end": f"origin\n7\n{ROOT_TEXT}",
    "an empty line at the end": f"origin\n7\n{ROOT_TEXT}\n\n",
    "an empty extension": f"origin\n7\n{ROOT_TEXT}\n\nextension\n",
    "a leading zero": f"origin\n07\n{ROOT_TEXT}\n",
    "two zeros": f"origin\n00\n{ROOT_TEXT}\n",
    "a plus sign": f"origin\n+7\n{ROOT_TEXT}\n",
    "a minus sign": f"origin\n-7\n{ROOT_TEXT}\n",
    "an underscore": f"origin\n1_0\n{ROOT_TEXT}\n",
    "a space before the size": f"origin\n 7\n{ROOT_TEXT}\n",
    "a space after the size": f"origin\n7 \n{ROOT_TEXT}\n",
    "a fraction": f"origin\n7.0\n{ROOT_TEXT}\n",
    "an exponent": f"origin\n1e3\n{ROOT_TEXT}\n",
    "hexadecimal": f"origin\n0x7\n{ROOT_TEXT}\n",
    "Arabic-Indic digits": f"origin\n\N{ARABIC-INDIC DIGIT SEVEN}\n{ROOT_TEXT}\n",
    "superscript digits": f"origin\n²\n{ROOT_TEXT}\n",
    "no size": f"origin\n\n{ROOT_TEXT}\n",
    "a size of 2^63": f"origin\n{2**63}\n{ROOT_TEXT}\n",
    "a size of ten thousand digits": f"origin\n{'9' * 10_000}\n{ROOT_TEXT}\n",
    "a root of 31 bytes": f"origin\n7\n{base64.b64encode(ROOT[:31]).decode()}\n",
    "a root of 33 bytes": f"origin\n7\n{base64.b64encode(ROOT + b'0').decode()}\n",
    "a root in hexadecimal": f"origin\n7\n{ROOT.hex()}\n",
    "a root without padding": f"origin\n7\n{ROOT_TEXT.rstrip('=')}\n",
    "a root with spare bits": f"origin\n7\n{ROOT_TEXT[:-2]}{chr(ord(ROOT_TEXT[-2]) + 1)}=\n",
    "a URL-safe root": "origin\n7\n" + "-" * 42 + "8=\n",
    "a space after the root": f"origin\n7\n{ROOT_TEXT} \n",
    "a carriage return": f"origin\r\n7\n{ROOT_TEXT}\n",
    "a control character in an extension": f"origin\n7\n{ROOT_TEXT}\nx\0y\n",
    "huge": f"origin\n7\n{ROOT_TEXT}\n" + "x\n" * MAX_NOTE_BYTES,
}


@pytest.mark.parametrize("text", MALFORMED_CHECKPOINTS.values(), ids=MALFORMED_CHECKPOINTS.keys())
def test_malformed_checkpoints_are_refused(text):
    for form in (text, text.encode()):
        with pytest.raises(CheckpointFormatError):
            parse_checkpoint(form)


def test_a_checkpoint_that_is_not_utf8_is_refused():
    with pytest.raises(CheckpointFormatError):
        parse_checkpoint(b"orig\xffin\n7\n" + ROOT_TEXT.encode() + b"\n")


WELL_FORMED_CHECKPOINTS = {
    "an empty tree": (f"origin\n0\n{ROOT_TEXT}\n", ("origin", 0, ())),
    "the largest tree": (f"origin\n{2**63 - 1}\n{ROOT_TEXT}\n", ("origin", 2**63 - 1, ())),
    "an origin with spaces and a plus sign": (
        f"go.sum database tree + more\n7\n{ROOT_TEXT}\n",
        ("go.sum database tree + more", 7, ()),
    ),
    "an origin that is a number": (f"7\n7\n{ROOT_TEXT}\n", ("7", 7, ())),
    "extensions": (f"origin\n7\n{ROOT_TEXT}\na \n b\n", ("origin", 7, ("a ", " b"))),
    "extensions that repeat the checkpoint": (
        f"origin\n7\n{ROOT_TEXT}\norigin\n8\n{ROOT_TEXT}\n",
        ("origin", 7, ("origin", "8", ROOT_TEXT)),
    ),
    "an extension that looks like a signature": (
        f"origin\n7\n{ROOT_TEXT}\n{GOOD_LINE}",
        ("origin", 7, (GOOD_LINE.rstrip(),)),
    ),
}


@pytest.mark.parametrize("case", WELL_FORMED_CHECKPOINTS.values(), ids=WELL_FORMED_CHECKPOINTS)
def test_unusual_checkpoints_are_read(case):
    text, (origin, size, extensions) = case
    checkpoint = Checkpoint(origin, size, ROOT, extensions)
    assert parse_checkpoint(text) == parse_checkpoint(text.encode()) == checkpoint
    note = sign(text, ORIGIN, SESSION_KEY)
    cosigned = cosign(note, COSIGNER, AUDITOR_KEY, 0)
    assert verify(cosigned.to_bytes(), [AUDITOR]).signatures == ((AUDITOR, 0),)


UNWRITABLE_CHECKPOINTS = {
    "an empty origin": ("", 7, ROOT, ()),
    "two lines of origin": ("a\nb", 7, ROOT, ()),
    "a tab in the origin": ("a\tb", 7, ROOT, ()),
    "a negative size": ("a", -1, ROOT, ()),
    "a size of 2^63": ("a", 2**63, ROOT, ()),
    "a short root": ("a", 7, ROOT[:31], ()),
    "an empty extension": ("a", 7, ROOT, ("",)),
    "two lines of extension": ("a", 7, ROOT, ("x\ny",)),
}


@pytest.mark.parametrize(
    "fields", UNWRITABLE_CHECKPOINTS.values(), ids=UNWRITABLE_CHECKPOINTS.keys()
)
def test_what_a_checkpoint_cannot_say_is_refused(fields):
    with pytest.raises(CheckpointFormatError):
        Checkpoint(*fields)


LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(LINES, st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.lists(LINES))
@settings(deadline=None, derandomize=True)
def test_checkpoints_survive_their_text(origin, size, root, extensions):
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert parse_checkpoint(checkpoint.to_text()) == checkpoint
    note = cosign(sign(checkpoint.to_text(), ORIGIN, SESSION_KEY), COSIGNER, AUDITOR_KEY, 5)
    verified = verify(note.to_bytes(), [SESSION, AUDITOR])
    assert parse_checkpoint(verified.text) == checkpoint


NOTE_LIKE = st.lists(
    st.sampled_from(["text", "\n", "— ", "a", " ", "MTIzNHg=", "+", "\0", "7", "\u2028", ROOT_TEXT])
).map("".join)


@given(NOTE_LIKE | st.text(max_size=50))
@settings(deadline=None, derandomize=True, max_examples=500)
def test_garbage_raises_only_typed_errors(text):
    data = text.encode()
    for read in (parse, parse_checkpoint, lambda item: verify(item, [SESSION])):
        with suppress(EvidenceError):
            read(data)
    with suppress(EvidenceError):
        assert VerifierKey.parse(text).encode() == text


@given(st.data())
@settings(deadline=None, derandomize=True)
def test_one_changed_byte_is_noticed(data):
    note = cosign(SIGNED, COSIGNER, AUDITOR_KEY, 5).to_bytes()
    position = data.draw(st.integers(0, len(note) - 1))
    changed = bytearray(note)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        verified = verify(bytes(changed), [SESSION, AUDITOR])
    except EvidenceError:
        return
    # A signature whose name or hash was changed is one by a stranger; the text still stands.
    assert verified.text == TEXT
    assert len(verified.signatures) == 1
