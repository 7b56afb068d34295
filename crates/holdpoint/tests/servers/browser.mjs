// A real browser follows a link as a person would, and says what it saw as one line of JSON.
//
//   node browser.mjs BROWSER URL [REASON]
//
// With a reason it writes that into the form and presses the button that approves, with the mouse.
// Speaks the browser's own protocol over pipes; needs nothing but Node.js.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [program, url, reason] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "hp-browser"));
const browser = spawn(
  program,
  ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
    `--user-data-dir=${profile}`, "about:blank"],
  { stdio: ["ignore", "ignore", "inherit", "pipe", "pipe"] },
);
const end = (code) => {
  browser.kill("SIGKILL");
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  process.exit(code);
};
setTimeout(() => {
  console.error("the browser took too long");
  end(1);
}, 40_000);
browser.on("error", (fault) => {
  console.error(`${program}: ${fault.message}`);
  end(1);
});

let last = 0;
const answers = new Map();
const listeners = new Map();
const requests = [];
let rest = "";
browser.stdio[4].setEncoding("utf8").on("data", (text) => {
  const lines = (rest + text).split("\0");
  rest = lines.pop();
  for (const line of lines) {
    const { id, method, params, result, error } = JSON.parse(line);
    if (id !== undefined) {
      const { done, failed } = answers.get(id);
      error ? failed(new Error(error.message)) : done(result);
    }
    if (method === "Network.requestWillBeSent") requests.push(params.request.url);
    listeners.get(method)?.(params);
  }
});

let session;
const ask = (method, params = {}) => new Promise((done, failed) => {
  last += 1;
  answers.set(last, { done, failed });
  const message = { id: last, method, params, sessionId: session };
  browser.stdio[3].write(`${JSON.stringify(message)}\0`);
});
const once = (method) => new Promise((done) => listeners.set(method, done));

async function evaluate(expression) {
  const asked = { expression, awaitPromise: true, returnByValue: true };
  const { result, exceptionDetails } = await ask("Runtime.evaluate", asked);
  if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
  return result.value;
}

const PAGE = `({
  title: document.title,
  text: document.body.innerText,
  buttons: [...document.querySelectorAll("button")].map((button) => button.value),
  scripts: document.scripts.length,
  ran: window.ran ?? null,
})`;

// What a hole in the page would let somebody else do with it.
const ATTACK = `new Promise((done) => {
  const blocked = new Set();
  document.addEventListener("securitypolicyviolation", (event) => {
    blocked.add(event.effectiveDirective);
    if (blocked.size === 4) done([...blocked].sort());
  });
  setTimeout(() => done([...blocked].sort()), 10_000);
  const script = document.createElement("script");
  script.textContent = "window.ran = 'inline'";
  document.body.append(script);
  const image = document.createElement("img");
  image.src = "/picture";
  image.setAttribute("onerror", "window.ran = 'handler'");
  document.body.append(image);
  fetch("/somewhere").catch(() => {});
})`;

async function press(selector) {
  const { x, y } = await evaluate(`(() => {
    const button = document.querySelector(${JSON.stringify(selector)});
    button.scrollIntoView();
    const { left, top, width, height } = button.getBoundingClientRect();
    return { x: left + width / 2, y: top + height / 2 };
  })()`);
  for (const type of ["mousePressed", "mouseReleased"]) {
    await ask("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
  }
}

try {
  const { targetId } = await ask("Target.createTarget", { url: "about:blank" });
  ({ sessionId: session } = await ask("Target.attachToTarget", { targetId, flatten: true }));
  for (const domain of ["Page", "Runtime", "Network"]) await ask(`${domain}.enable`);
  let loaded = once("Page.loadEventFired");
  await ask("Page.navigate", { url });
  await loaded;
  const looked = await evaluate(PAGE);
  const said = { looked, requests: [...requests] };
  if (reason === undefined) {
    said.blocked = await evaluate(ATTACK);
    said.ran = await evaluate("window.ran ?? null");
  } else {
    await evaluate(`document.querySelector("input[name=because]").focus()`);
    await ask("Input.insertText", { text: reason });
    loaded = once("Page.loadEventFired");
    await press("button[value=yes]");
    await loaded;
    said.after = await evaluate(PAGE);
  }
  console.log(JSON.stringify(said));
  end(0);
} catch (fault) {
  console.error(fault);
  end(1);
}
