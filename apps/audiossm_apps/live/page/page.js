// The page: microphone and recordings to a stream, its words to the screen.

import { Stream, Transcript, streamAddress } from "./audiossm.js";

const FILE_RATE = 16000; // what recordings are decoded to
const LONGEST_RATE = 48000; // the most that the server takes
const CUT_S = 2;

const at = (id) => document.getElementById(id);
let current = null; // the one stream that goes on
let microphone = null;

// not disabled: a button that has the focus would lose it
function allow(id, yes) {
  at(id).setAttribute("aria-disabled", String(!yes));
}

function isAllowed(id) {
  return at(id).getAttribute("aria-disabled") !== "true";
}

function onClick(id, act) {
  at(id).addEventListener("click", () => {
    if (isAllowed(id)) act();
  });
}

/** Whether nothing goes on, a question for the microphone included. */
function isFree() {
  return current === null && microphone === null && isAllowed("microphone");
}

function explain(text) {
  at("problem").textContent = text;
}

function seconds(value) {
  const minutes = Math.floor(value / 60);
  return minutes ? `${minutes} min ${Math.floor(value % 60)} s` : `${value.toFixed(1)} s`;
}

function readHotwords() {
  const lines = at("hotwords").value.split("\n").map((line) => line.trim());
  return lines.filter((line) => line !== "");
}

/** Add a paragraph to the text. */
function addParagraph() {
  const paragraph = document.createElement("p");
  at("finals").append(paragraph);
  return paragraph;
}

/** Begin a stream; it has a paragraph for all that is said between two pauses. */
function begin(sampleRate, isLive) {
  const hotwords = readHotwords();
  const start = { sample_rate: sampleRate, ...(hotwords.length ? { hotwords } : {}) };
  const stream = new Stream({ url: streamAddress(location), key: at("key").value.trim(), start });
  const transcript = new Transcript();
  let paragraph = addParagraph();
  const delays = [];
  explain("");
  at("empty").hidden = true;
  at("delay").textContent = isLive ? "–" : "not measured: not live";

  stream.onreply = (reply) => {
    if (reply.type === "started") {
      at("model").textContent = reply.model;
      at("size").textContent = `${Math.ceil(reply.state_bytes / 1024)} KiB`;
    }
    if (reply.type === "refused") explain(reply.message);
    if (reply.type === "word" && isLive && !stream.protocol.finishing) {
      delays.push(stream.protocol.taken / sampleRate - reply.end_s);
      delays.splice(0, delays.length - 20);
      const middle = [...delays].sort((a, b) => a - b)[Math.floor(delays.length / 2)];
      at("delay").textContent = `${middle.toFixed(2)} s (median of ${delays.length})`;
    }
    const words = transcript.add(reply);
    if (words.length) {
      if (transcript.begins && paragraph.hasChildNodes()) paragraph = addParagraph();
      paragraph.append(document.createTextNode(`${words.join(" ")} `));
      allow("copy", true);
    }
    const { tail } = transcript;
    if (at("tail").textContent !== tail) at("tail").textContent = tail;
    at("text").scrollTop = at("text").scrollHeight;
    showFacts();
  };

  stream.onstate = (state, reason) => {
    const names = {
      connecting: "connecting",
      live: "live",
      waiting: `lost (${reason}): trying again, recording on`,
      finished: "finished",
      failed: "failed",
    };
    const again = state === "live" && stream.reconnects > 0;
    at("state").textContent = again ? "live again: no word lost or doubled" : names[state];
    at("state").dataset.state = state;
    allow("cut", state === "live");
    if (state === "failed") explain(`The stream ended: ${reason}.`);
    if (state === "finished" || state === "failed") end();
    showFacts();
  };

  function showFacts() {
    const { taken, kept } = stream.protocol;
    at("audio").textContent = `${seconds(taken / sampleRate)} at ${sampleRate} Hz`;
    at("kept").textContent = `${seconds(kept / sampleRate)}, ${Math.ceil((2 * kept) / 1024)} KiB`;
    at("resumed").textContent = String(stream.reconnects);
  }

  function end() {
    if (current !== stream) return;
    current = null;
    if (transcript.tail) at("tail").textContent = transcript.tail;
    microphone?.release();
    showButtons();
  }

  current = stream;
  stream.showFacts = showFacts;
  stream.open();
  showButtons();
  return stream;
}

function showButtons() {
  const button = at("microphone");
  button.textContent = microphone ? "Stop the microphone" : "Start the microphone";
  button.dataset.on = String(microphone !== null);
  allow("microphone", current === null || microphone !== null);
  allow("choose", current === null && microphone === null);
  if (current === null) allow("cut", false);
}

function showLevel(peak) {
  const level = peak > 0 ? Math.max(-60, 20 * Math.log10(peak)) : -60;
  at("level").value = level;
  at("level-text").textContent = peak >= 0.999 ? "too loud" : `${level.toFixed(0)} dB`;
}

function makeContext() {
  const context = new AudioContext();
  if (context.sampleRate <= LONGEST_RATE) return context;
  context.close();
  return new AudioContext({ sampleRate: LONGEST_RATE });
}

/** Start the microphone; the object that is returned stops it. */
async function listen() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("browsers give a microphone to https pages and to localhost only");
  }
  // as it is: what a browser does for telephony takes away from words
  const wishes = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const media = await navigator.mediaDevices.getUserMedia({ audio: wishes });
  const context = makeContext();
  await context.audioWorklet.addModule("recorder.js");
  await context.resume();
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const stream = begin(context.sampleRate, true);
  recorder.port.onmessage = ({ data }) => {
    if (data === null) {
      if (current === stream) stream.finish();
      release();
      return;
    }
    showLevel(data.peak);
    if (current !== stream) return;
    stream.send(data.samples);
    stream.showFacts();
  };
  media.getAudioTracks()[0].onended = () => {
    explain("The microphone is gone.");
    stop();
  };
  context.createMediaStreamSource(media).connect(recorder);

  function stop() {
    recorder.port.postMessage("stop");
  }

  function release() {
    for (const track of media.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
    microphone = null;
    showLevel(0);
    showButtons();
  }

  return { stop, release };
}

async function transcribeFile(file) {
  const context = new OfflineAudioContext(1, 1, FILE_RATE);
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    explain(`${file.name} is no recording that this browser can read.`);
    return;
  }
  const mixed = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((value, index) => {
      mixed[index] += value / audio.numberOfChannels;
    });
  }
  if (!isFree()) return;
  const stream = begin(FILE_RATE, false);
  stream.send(Int16Array.from(mixed, (value) =>
    Math.max(-32768, Math.min(32767, Math.round(value * 32768)))));
  stream.finish();
}

onClick("microphone", async () => {
  if (microphone) {
    allow("microphone", false); // until the last of it came
    microphone.stop();
    return;
  }
  allow("microphone", false);
  try {
    microphone = await listen();
  } catch (error) {
    explain(`No microphone: ${error.message}.`);
  }
  showButtons();
});

onClick("choose", () => at("file").click());
at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  at("file").value = "";
  if (file) transcribeFile(file);
});

at("settings").addEventListener("submit", (event) => event.preventDefault());
onClick("cut", () => current?.cut(CUT_S));
onClick("copy", async () => {
  const lines = [...at("finals").children].map((line) => line.textContent.trim());
  try {
    await navigator.clipboard.writeText(lines.filter(Boolean).join("\n"));
  } catch (error) {
    explain(`The text couldn't be copied: ${error.message}.`);
  }
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file && isFree()) transcribeFile(file);
});
addEventListener("beforeunload", (event) => {
  if (microphone) event.preventDefault(); // the browser asks first
});
