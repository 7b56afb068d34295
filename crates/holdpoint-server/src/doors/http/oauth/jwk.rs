//! The public keys of an issuer (JWK Set, RFC 7517), and whether one of them made a signature.
//!
//! Only asymmetric keys are ever read, so no secret can be confused with one of them. Must not do
//! I/O, and must never let a key verify for an algorithm that is not of its own kind.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_types::{JsonLimits, parse};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// Longest JWK Set, in bytes.
pub(super) const JWKS_BYTES_MAX: usize = 256 << 10;
/// Most keys of a JWK Set.
pub(super) const KEYS_MAX: usize = 64;
/// Deepest nesting of a JWK Set.
pub(super) const DEPTH_MAX: usize = 8;
/// Lengths of RSA moduli that are safe and can be verified, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signature algorithm of JOSE (RFC 7518, RFC 8037): asymmetric ones only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519; also written `Ed25519` (RFC 9864).
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
}

/// The text names no asymmetric signature algorithm that is known here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the algorithm is not an asymmetric one that is known here")]
pub struct UnknownAlgorithm;

/// Public keys that can verify.
#[derive(Debug)]
pub(super) struct PublicKeys(Vec<PublicKey>);

/// A JWK Set of which nothing can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JwksFault {
    #[error("it is no JWK Set: {0}")]
    Malformed(String),
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("it has no asymmetric signature key that can be used")]
    Empty,
}

/// Why no key vouches for a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyFault {
    /// Perhaps a key that was made after the set was fetched.
    #[error("no key of the issuer has the id that the token names")]
    Unknown,
    #[error("the token names no key, and it could be one of several")]
    Ambiguous,
    #[error("the key that the token names is not one for the token's algorithm")]
    OtherKind,
    #[error("the signature is not the issuer's")]
    Signature,
}

#[derive(Debug)]
struct PublicKey {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

// === impl Algorithm ===

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 9] = [
        Self::EdDsa,
        Self::Es256,
        Self::Es384,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
    ];

    /// Its name in JOSE.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        if text == "Ed25519" {
            return Ok(Self::EdDsa);
        }
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl PublicKeys ===

impl PublicKeys {
    /// Reads a JWK Set. Keys of no use here are passed over, as RFC 7517 (section 5) wants.
    pub(super) fn parse(text: &[u8]) -> Result<Self, JwksFault> {
        let limits = JsonLimits { bytes_max: JWKS_BYTES_MAX, depth_max: DEPTH_MAX };
        let set = parse(text, limits).map_err(|fault| JwksFault::Malformed(fault.to_string()))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or_else(|| JwksFault::Malformed("it has no `keys`".to_owned()))?;
        if keys.len() > KEYS_MAX {
            return Err(JwksFault::TooMany);
        }
        let usable: Vec<_> =
            keys.iter().filter_map(|key| PublicKey::read(key.as_object()?)).collect();
        if usable.is_empty() {
            return Err(JwksFault::Empty);
        }
        Ok(Self(usable))
    }

    /// How many keys can be used.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sees whether the key that `id` names made `signature` over `message`. A signature that names
    /// no key must leave no choice.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), KeyFault> {
        let named: Vec<_> = match id {
            Some(id) => self.0.iter().filter(|key| key.id.as_deref() == Some(id)).collect(),
            None => self.0.iter().filter(|key| key.fits(algorithm)).collect(),
        };
        if named.is_empty() {
            return Err(KeyFault::Unknown);
        }
        if id.is_none() && named.len() > 1 {
            return Err(KeyFault::Ambiguous);
        }
        let mut fitting = named.iter().filter(|key| key.fits(algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(KeyFault::OtherKind);
        }
        let made = fitting.any(|key| key.material.verify(algorithm, message, signature));
        if made { Ok(()) } else { Err(KeyFault::Signature) }
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// The key, unless it is of no use here.
    fn read(key: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let for_signing = text("use").is_none_or(|purpose| purpose == "sig");
        let verifies = key.get("key_ops").is_none_or(|uses| {
            uses.as_array().is_some_and(|uses| uses.iter().any(|one| one == "verify"))
        });
        if !for_signing || !verifies {
            return None;
        }
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
            ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", Some("Ed25519")) => {
                Material::Ed25519(bytes("x").filter(|key| key.len() == 32)?)
            }
            (_, _) => return None,
        };
        let id = text("kid").map(str::to_owned);
        let algorithm = text("alg").map(str::to_owned);
        Some(Self { id, algorithm, material })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let own = self.algorithm.as_deref().is_none_or(|own| own.parse() == Ok(algorithm));
        own && self.material.fits(algorithm)
    }
}

// === impl Material ===

impl Material {
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len().saturating_mul(8);
        let bits = bits.saturating_sub(n.first()?.leading_zeros().try_into().ok()?);
        RSA_BITS.contains(&bits).then(|| Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::EdDsa => matches!(self, Self::Ed25519(_)),
            Algorithm::Es256 => matches!(self, Self::P256(_)),
            Algorithm::Es384 => matches!(self, Self::P384(_)),
            Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512
            | Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512 => matches!(self, Self::Rsa { .. }),
        }
    }

    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let plain = |how: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(message, signature).is_ok()
        };
        match self {
            Self::Rsa { n, e } => rsa(algorithm).is_some_and(|how| {
                RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
            }),
            Self::P256(key) => plain(&signature::ECDSA_P256_SHA256_FIXED, key),
            Self::P384(key) => plain(&signature::ECDSA_P384_SHA384_FIXED, key),
            Self::Ed25519(key) => plain(&signature::ED25519, key),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Es384 => None,
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// An uncompressed point: both coordinates have the length of the curve's field (RFC 7518, 6.2.1).
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    if x.len() != length || y.len() != length {
        return None;
    }
    Some([&[4], x, y].concat())
}
