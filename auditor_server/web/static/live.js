// Follows a session: puts in place what the server has drawn, until its reader says stop.
"use strict";

const progress = document.querySelector("[data-events]");
const state = document.querySelector("[data-live-state]");
const button = document.querySelector("[data-live-button]");
let source = null;

function say(name) {
  state.textContent = state.dataset[name];
}

function stop() {
  source.close();
  source = null;
  button.textContent = button.dataset.follow;
}

function follow() {
  source = new EventSource(progress.dataset.events);
  button.textContent = button.dataset.pause;
  source.addEventListener("open", () => say("following"));
  source.addEventListener("error", () => say("interrupted"));
  source.addEventListener("progress", (event) => {
    progress.innerHTML = event.data;
  });
  source.addEventListener("end", () => {
    stop();
    button.hidden = true;
    say("ended");
  });
}

if (progress && window.EventSource) {
  button.hidden = false;
  button.addEventListener("click", () => {
    if (source) {
      stop();
      say("paused");
    } else {
      follow();
    }
  });
  follow();
}
