// A real authorization server (oidc-provider) for tests: on loopback, everybody is Ada and agrees.
//
//   node issuer.mjs MODULES
//
// MODULES is the folder with oidc-provider. Writes `{"issuer": …}` when it listens. A line `rotate`
// on standard input replaces the signing keys, a line `sign ALG` chooses the algorithm of access
// tokens; both are answered with `{"done": true}`.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const entry = resolve(process.argv[2], "oidc-provider/lib/index.js");
const { Provider } = await import(pathToFileURL(entry));

const SCOPES = ["mcp:read", "mcp:write", "mcp:destructive"];
const clients = ["coder-client", "other-client"].map((client_id) => ({
  client_id,
  client_secret: `${client_id}-secret`,
  grant_types: ["client_credentials"],
  response_types: [],
  redirect_uris: [],
  scope: SCOPES.join(" "),
}));
clients.push({
  client_id: "user-client",
  token_endpoint_auth_method: "none",
  grant_types: ["authorization_code"],
  response_types: ["code"],
  redirect_uris: ["http://127.0.0.1:1/callback"],
  scope: SCOPES.join(" "),
});
let current;
let algorithm = "RS256";

function signingKeys() {
  const made = [
    [generateKeyPairSync("rsa", { modulusLength: 2048 }), "RS256"],
    [generateKeyPairSync("rsa", { modulusLength: 3072 }), "PS512"],
    [generateKeyPairSync("ec", { namedCurve: "P-256" }), "ES256"],
    [generateKeyPairSync("ed25519"), "EdDSA"],
  ];
  const jwk = ([pair, alg]) => ({ ...pair.privateKey.export({ format: "jwk" }), alg, kid: randomUUID(), use: "sig" });
  return { keys: made.map(jwk) };
}

function provider(issuer, jwks) {
  const made = new Provider(issuer, {
    clients,
    jwks,
    scopes: SCOPES,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    cookies: { keys: ["for tests only"] },
    pkce: { required: () => true },
    interactions: { url: (_, interaction) => `/agree/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => ({
          scope: SCOPES.join(" "),
          audience: resource,
          accessTokenTTL: 300,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: algorithm } },
        }),
      },
    },
  });
  made.use(async (ctx, next) => {
    if (!ctx.path.startsWith("/agree/")) return next();
    const { params, prompt, grantId } = await made.interactionDetails(ctx.req, ctx.res);
    if (prompt.name === "login") {
      return made.interactionFinished(ctx.req, ctx.res, { login: { accountId: "ada" } });
    }
    const grant = grantId
      ? await made.Grant.find(grantId)
      : new made.Grant({ accountId: "ada", clientId: params.client_id });
    if (params.scope) grant.addOIDCScope(params.scope);
    for (const resource of [params.resource].flat().filter(Boolean)) {
      grant.addResourceScope(resource, params.scope ?? "");
    }
    const consent = { grantId: await grant.save() };
    return made.interactionFinished(ctx.req, ctx.res, { consent }, { mergeWithLastSubmission: true });
  });
  return made.callback();
}

const server = createServer((req, res) => current(req, res));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  current = provider(issuer, signingKeys());
  console.log(JSON.stringify({ issuer }));
  createInterface({ input: process.stdin }).on("line", (line) => {
    if (line === "rotate") current = provider(issuer, signingKeys());
    if (line.startsWith("sign ")) algorithm = line.slice("sign ".length);
    console.log(JSON.stringify({ done: true }));
  });
});
process.stdin.on("end", () => process.exit(0));
