// Client scenarios that do not pass, each with the reason.
const JWT = "private_key_jwt is not offered: rmcp's brings a second cryptographic library";
const IDENTITY = "exchanging another identity for a credential is not offered";
const DPOP = "DPoP is not offered: rmcp has none";
const ISSUER = "its server names another issuer than RFC 8414 allows; as mended in 0.2 it passes";
export const EXPECTED = {
  "conformance-0.1 auth/2025-03-26-oauth-metadata-backcompat": ISSUER,
  "auth/client-credentials-jwt": JWT,
  "auth/cross-app-access-complete-flow": IDENTITY,
  "auth/enterprise-managed-authorization": IDENTITY,
  "auth/wif-jwt-bearer": IDENTITY,
  "auth/dpop": DPOP,
  "auth/dpop-nonce": DPOP,
};
