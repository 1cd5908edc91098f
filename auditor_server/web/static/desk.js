// The desk: pictures can be dropped, and one sees how far they have got. Nothing depends on it.
"use strict";

const form = document.querySelector("#desk");
const drop = document.querySelector("[data-drop]");
const pictures = document.querySelector("#pictures");
const folder = document.querySelector("#folder");
const chosen = document.querySelector("[data-chosen]");
const busy = document.querySelector("[data-busy]");
const state = document.querySelector("[data-state]");
const progress = document.querySelector("[data-progress]");
const refused = document.querySelector("#refused");
const MEGABYTE = 1048576;

function tell(problem) {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.textContent = problem;
  refused.replaceChildren(notice);
}

function show() {
  const files = [...pictures.files, ...folder.files];
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  const tooLarge = bytes > Number(drop.dataset.mostBytes);
  const numbers = drop.dataset.dropped.replace("{}", files.length);
  const size = (bytes / MEGABYTE).toFixed(1);
  chosen.textContent = files.length ? numbers.replace("{}", size) : "";
  pictures.setCustomValidity(tooLarge ? drop.dataset.tooLarge : "");
}

if (form) {
  drop.querySelector("[data-drop-hint]").hidden = false;
  pictures.addEventListener("change", show);
  folder.addEventListener("change", show);
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    if (entries.some((entry) => entry && entry.isDirectory)) {
      chosen.textContent = drop.dataset.folder;
    } else if (event.dataTransfer.files.length) {
      pictures.files = event.dataTransfer.files;
      show();
    }
  });
  form.addEventListener("htmx:beforeRequest", () => {
    refused.replaceChildren();
    progress.removeAttribute("value");
    state.textContent = state.dataset.sending;
    busy.hidden = false;
  });
  form.addEventListener("htmx:xhr:progress", (event) => {
    const { loaded, total } = event.detail;
    if (total && loaded < total) {
      progress.value = (100 * loaded) / total;
    } else {
      progress.removeAttribute("value");
      state.textContent = state.dataset.asking;
    }
  });
  // What is refused before the desk is asked, a sign-in that is over for one, comes as a document.
  form.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if ((xhr.getResponseHeader("Content-Type") || "").includes("json")) {
      event.detail.shouldSwap = false;
      tell(JSON.parse(xhr.response).detail);
    }
  });
  form.addEventListener("htmx:sendError", () => tell(state.dataset.failed));
  form.addEventListener("htmx:afterRequest", (event) => {
    const leaving = event.detail.xhr.getResponseHeader("HX-Redirect");
    busy.hidden = !leaving;
  });
}
