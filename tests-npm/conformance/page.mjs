// The page that shows what was measured: docs/conformance.md. Each table stands between two marks.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { here } from "./ends.mjs";

const PAGE = join(here, "../../docs/conformance.md");

function parts(name) {
  const [head, rest] = readFileSync(PAGE, "utf8").split(`<!-- ${name}: begin -->\n`);
  const [inside, tail] = rest.split(`<!-- ${name}: end -->\n`);
  return { head, inside, tail };
}

/** What the page shows under this name. */
export const shown = (name) => parts(name).inside;

/** Shows something else there. */
export function show(name, text) {
  const { head, tail } = parts(name);
  const marks = [`<!-- ${name}: begin -->\n`, `<!-- ${name}: end -->\n`];
  writeFileSync(PAGE, [head, marks[0], text, marks[1], tail].join(""));
}
