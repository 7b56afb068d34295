// Does what a person does with a browser who opens a URL, logs in and consents: follows redirects,
// keeps cookies, fills in oidc-provider's forms. Ends at the first page that has no form.
//
//   node consent.mjs URL ACCOUNT [decline]
const [start, account, decline] = process.argv.slice(2);
const jar = new Map();

async function open(url, form) {
  const { host } = new URL(url);
  const cookies = [...(jar.get(host) ?? new Map())].map(([name, value]) => `${name}=${value}`);
  const answer = await fetch(url, {
    redirect: "manual",
    method: form ? "POST" : "GET",
    headers: { cookie: cookies.join("; ") },
    ...(form ? { body: new URLSearchParams(form) } : {}),
  });
  for (const line of answer.headers.getSetCookie()) {
    const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
    if (!jar.has(host)) jar.set(host, new Map());
    jar.get(host).set(name, value);
  }
  return answer;
}

let url = start;
let form;
for (let step = 0; step < 20; step += 1) {
  const answer = await open(url, form);
  form = undefined;
  const next = answer.headers.get("location");
  if (next !== null) {
    url = new URL(next, url).href;
    continue;
  }
  const text = await answer.text();
  const [, prompt] = text.match(/name="prompt" value="(\w+)"/) ?? [];
  if (prompt === undefined) {
    console.log(`${answer.status} ${text}`);
    process.exit(answer.ok ? 0 : 1);
  }
  if (decline) {
    const [, abort] = text.match(/href="([^"]*\/abort)"/);
    url = new URL(abort, url).href;
  } else {
    form = { prompt, login: account, password: "any" };
  }
}
throw new Error("it never ends");
