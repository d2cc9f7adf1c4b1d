// Drives the page's Protocol and Transcript for test_page.py: a JSON list of calls a line in, what
// came of them out.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { Protocol, Transcript } = await import(pathToFileURL(process.argv[2]));
let client, transcript;

const calls = {
  new: (start) => {
    client = new Protocol(start);
    transcript = new Transcript();
  },
  connected: () => client.connected(),
  audio: (samples) => client.sendAudio(Int16Array.from(samples)),
  control: (type, fields) => client.control(type, fields),
  finish: () => client.finish(),
  receive: (text) => client.receive(text),
  outgoing: () => client.outgoing().map((m) => (typeof m === "string" ? m : [...m])),
  show: (reply) => [transcript.add(reply), transcript.tail],
  said: (reply) => [transcript.add(reply), transcript.begins],
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  let answer;
  try {
    answer = { value: calls[name](...args) ?? null };
  } catch (error) {
    answer = { error: `${error.constructor.name}: ${error.message}` };
  }
  if (client) {
    const { durable, durableControls, kept, waiting, finished } = client;
    answer.state = { durable, durableControls, kept, waiting, finished };
  }
  console.log(JSON.stringify(answer));
}
