//! Merkle tree hashes and proofs (RFC 6962, section 2; verification as RFC 9162, section 2.1).
//!
//! Owns how leaves become roots and how membership and growth are proved. Must not know what a leaf
//! holds, nor keep leaves: callers bring them.

use holdpoint_types::Digest;
use sha2::{Digest as _, Sha256};

/// Domain separation of leaves and inner nodes (RFC 6962, section 2.1).
const LEAF: [u8; 1] = [0x00];
const NODE: [u8; 1] = [0x01];
/// Bytes of one hash, and of the size in front of a frontier's hashes.
const HASH_BYTES: usize = 32;
const SIZE_BYTES: usize = 8;

/// The right edge of a growing tree: all that is needed to append a leaf and to know the root.
///
/// # Invariants
/// Holds one hash per bit set in `size`, the largest complete subtree first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

/// The bytes are not a frontier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored tree edge is damaged: {bytes} bytes do not fit its size")]
pub struct FrontierFault {
    /// How many bytes there were.
    pub bytes: usize,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// The position or the sizes cannot be.
    #[error("the proof asks for a position or a size that the tree does not have")]
    OutOfRange,
    /// Too many or too few hashes.
    #[error("the proof has the wrong number of hashes")]
    WrongLength,
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    OtherRoot,
}

// === impl Frontier ===

impl Frontier {
    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        let mut size = self.size;
        // Every trailing one bit is a complete subtree that the new leaf completes a larger one
        // with.
        while size & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            size >>= 1;
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root of the tree; the hash of nothing if it is empty.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return Digest::of(b"") };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// The stored form: the size (8 bytes, big endian), then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIZE_BYTES + HASH_BYTES * self.peaks.len());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for peak in &self.peaks {
            bytes.extend_from_slice(peak.as_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the number of hashes does not fit the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierFault> {
        let fault = FrontierFault { bytes: bytes.len() };
        let Some((size, hashes)) = bytes.split_first_chunk::<SIZE_BYTES>() else {
            return Err(fault);
        };
        let size = u64::from_be_bytes(*size);
        let (hashes, rest) = hashes.as_chunks::<HASH_BYTES>();
        // `u64::MAX` leaves could not be appended to; no real log comes near.
        let fits = usize::try_from(size.count_ones()) == Ok(hashes.len()) && size != u64::MAX;
        if !rest.is_empty() || !fits {
            return Err(fault);
        }
        let peaks = hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect();
        Ok(Self { size, peaks })
    }
}

impl Extend<Digest> for Frontier {
    fn extend<I: IntoIterator<Item = Digest>>(&mut self, leaves: I) {
        for leaf in leaves {
            self.push(leaf);
        }
    }
}

/// The hash of one leaf.
pub fn leaf_hash(bytes: &[u8]) -> Digest {
    let hash = Sha256::new().chain_update(LEAF).chain_update(bytes).finalize();
    Digest::from_bytes(hash.into())
}

/// Proves that the leaf at `index` is among `leaves` (hashes, in order): the sibling hashes from
/// the leaf to the root. `None` if there is no such leaf.
pub fn inclusion_proof(leaves: &[Digest], index: u64) -> Option<Vec<Digest>> {
    let index = usize::try_from(index).ok().filter(|index| *index < leaves.len())?;
    let mut proof = Vec::new();
    path(index, leaves, &mut proof);
    Some(proof)
}

/// Proves that the first `old_size` of `leaves` are what they were when the tree had that size.
/// `None` if there are fewer. The proof from an empty tree, or to the same tree, is empty.
pub fn consistency_proof(leaves: &[Digest], old_size: u64) -> Option<Vec<Digest>> {
    let old_size = usize::try_from(old_size).ok().filter(|size| *size <= leaves.len())?;
    let mut proof = Vec::new();
    if old_size > 0 {
        subproof(old_size, leaves, Known::Yes, &mut proof);
    }
    Some(proof)
}

/// Checks that `leaf` stands at `index` in the tree of `size` leaves with this `root`.
///
/// # Errors
/// When it does not, or the proof is malformed.
pub fn verify_inclusion(
    leaf: Digest,
    (index, size): (u64, u64),
    proof: &[Digest],
    root: Digest,
) -> Result<(), ProofFault> {
    if index >= size {
        return Err(ProofFault::OutOfRange);
    }
    let mut walk = Walk { node: index, last: size - 1 };
    let mut hash = leaf;
    for sibling in proof {
        match walk.side()? {
            Side::Left => hash = node_hash(sibling, &hash),
            Side::Right => hash = node_hash(&hash, sibling),
        }
        walk.up();
    }
    walk.end()?;
    if hash == root { Ok(()) } else { Err(ProofFault::OtherRoot) }
}

/// Checks that the tree `old` (size and root) is a beginning of the tree `new`.
///
/// # Errors
/// When it is not, or the proof is malformed.
pub fn verify_consistency(
    old: (u64, Digest),
    new: (u64, Digest),
    proof: &[Digest],
) -> Result<(), ProofFault> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return Err(ProofFault::OutOfRange);
    }
    if old_size == 0 || old_size == new_size {
        let expected = if old_size == 0 { Digest::of(b"") } else { new_root };
        return match (proof.is_empty(), old_root == expected) {
            (false, _) => Err(ProofFault::WrongLength),
            (true, false) => Err(ProofFault::OtherRoot),
            (true, true) => Ok(()),
        };
    }
    let (first, rest) = match old_size.is_power_of_two() {
        true => (old_root, proof),
        false => {
            let (first, rest) = proof.split_first().ok_or(ProofFault::WrongLength)?;
            (*first, rest)
        }
    };
    let roots = grow(Walk::from_old(old_size, new_size), first, rest)?;
    if roots == (old_root, new_root) { Ok(()) } else { Err(ProofFault::OtherRoot) }
}

/// Whether the verifier already holds the hash of the subtree at hand.
#[derive(Clone, Copy)]
enum Known {
    Yes,
    No,
}

/// On which side of the node the next sibling stands.
enum Side {
    Left,
    Right,
}

/// A way from a leaf up to the root: `fn` and `sn` of RFC 9162.
struct Walk {
    node: u64,
    last: u64,
}

// === impl Walk ===

impl Walk {
    /// Starts at the largest complete subtree on the right edge of the old tree.
    fn from_old(old_size: u64, new_size: u64) -> Self {
        let shared = (old_size - 1).trailing_ones();
        Self { node: (old_size - 1) >> shared, last: (new_size - 1) >> shared }
    }

    /// Where the next sibling stands; skips levels where the node has none.
    fn side(&mut self) -> Result<Side, ProofFault> {
        if self.last == 0 {
            return Err(ProofFault::WrongLength);
        }
        if self.node & 1 == 0 && self.node != self.last {
            return Ok(Side::Right);
        }
        while self.node & 1 == 0 && self.node != 0 {
            self.up();
        }
        Ok(Side::Left)
    }

    fn up(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }

    fn end(&self) -> Result<(), ProofFault> {
        if self.last == 0 { Ok(()) } else { Err(ProofFault::WrongLength) }
    }
}

/// Follows a consistency proof: the old and the new root that it leads to.
fn grow(mut walk: Walk, first: Digest, proof: &[Digest]) -> Result<(Digest, Digest), ProofFault> {
    let (mut old, mut new) = (first, first);
    for sibling in proof {
        match walk.side()? {
            Side::Left => {
                old = node_hash(sibling, &old);
                new = node_hash(sibling, &new);
            }
            Side::Right => new = node_hash(&new, sibling),
        }
        walk.up();
    }
    walk.end().map(|()| (old, new))
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let hash = Sha256::new().chain_update(NODE);
    let hash = hash.chain_update(left.as_bytes()).chain_update(right.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

fn root_of(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    frontier.extend(leaves.iter().copied());
    frontier.root()
}

/// The two subtrees of a tree with more than one leaf: the left one is the largest power of two
/// that leaves something for the right one.
fn halves(leaves: &[Digest]) -> Option<(&[Digest], &[Digest])> {
    let middle = leaves.len().checked_sub(1)?.checked_ilog2().map(|bits| 1_usize << bits)?;
    leaves.split_at_checked(middle)
}

/// `PATH` of RFC 6962, section 2.1.1.
fn path(index: usize, leaves: &[Digest], proof: &mut Vec<Digest>) {
    let Some((left, right)) = halves(leaves) else { return };
    match index.checked_sub(left.len()) {
        None => {
            path(index, left, proof);
            proof.push(root_of(right));
        }
        Some(index) => {
            path(index, right, proof);
            proof.push(root_of(left));
        }
    }
}

/// `SUBPROOF` of RFC 6962, section 2.1.2.
fn subproof(old_size: usize, leaves: &[Digest], known: Known, proof: &mut Vec<Digest>) {
    if old_size == leaves.len() {
        if let Known::No = known {
            proof.push(root_of(leaves));
        }
        return;
    }
    let Some((left, right)) = halves(leaves) else { return };
    match old_size.checked_sub(left.len()) {
        None | Some(0) => {
            subproof(old_size, left, known, proof);
            proof.push(root_of(right));
        }
        Some(old_size) => {
            subproof(old_size, right, Known::No, proof);
            proof.push(root_of(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Frontier, consistency_proof, inclusion_proof, leaf_hash, root_of, verify_consistency,
        verify_inclusion,
    };
    use holdpoint_types::Digest;
    use proptest::prelude::*;

    /// The leaves and roots that Certificate Transparency implementations test each other with.
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), Digest::of(b""));
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            frontier.push(leaf_hash(leaf));
            assert_eq!(frontier.root().to_string(), format!("sha256:{root}"));
        }
    }

    #[test]
    fn every_proof_of_small_trees_verifies_and_no_other_does() {
        for size in 1..=20_usize {
            let leaves = leaves(size);
            let root = root_of(&leaves);
            for index in 0..size {
                let proof = inclusion_proof(&leaves, index as u64).unwrap();
                let at = (index as u64, size as u64);
                assert_eq!(verify_inclusion(leaves[index], at, &proof, root), Ok(()));
                for other in 0..=size {
                    if other != index {
                        let wrong = (other as u64, size as u64);
                        assert!(verify_inclusion(leaves[index], wrong, &proof, root).is_err());
                    }
                }
            }
            assert_eq!(inclusion_proof(&leaves, size as u64), None);
            for old_size in 0..=size {
                let old = (old_size as u64, root_of(&leaves[..old_size]));
                let proof = consistency_proof(&leaves, old_size as u64).unwrap();
                let new = (size as u64, root);
                assert_eq!(verify_consistency(old, new, &proof), Ok(()), "{old_size} {size}");
                let forged = (old_size as u64, Digest::of(b"other"));
                assert!(verify_consistency(forged, new, &proof).is_err());
                let forged = (size as u64, Digest::of(b"other"));
                if old_size > 0 {
                    assert!(verify_consistency(old, forged, &proof).is_err());
                }
            }
            assert_eq!(consistency_proof(&leaves, size as u64 + 1), None);
        }
    }

    proptest! {
        #[test]
        fn a_frontier_survives_its_bytes(size in 0_usize..300, more in 0_usize..20) {
            let leaves = leaves(size + more);
            let mut frontier = Frontier::default();
            frontier.extend(leaves.iter().copied().take(size));
            let mut again = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
            prop_assert_eq!(&again, &frontier);
            again.extend(leaves.iter().copied().skip(size));
            prop_assert_eq!(again.root(), root_of(&leaves));
        }

        #[test]
        fn any_bytes_give_a_frontier_or_a_fault(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(frontier) = Frontier::from_bytes(&bytes) {
                prop_assert_eq!(frontier.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_changed_proof_proves_nothing(
            size in 2_usize..80,
            index in any::<prop::sample::Index>(),
            old in any::<prop::sample::Index>(),
            change in any::<prop::sample::Index>(),
        ) {
            let leaves = leaves(size);
            let root = root_of(&leaves);
            let index = index.index(size);
            let mut proof = inclusion_proof(&leaves, index as u64).unwrap();
            let changed = change.index(proof.len());
            proof[changed] = Digest::of(proof[changed].as_bytes());
            let at = (index as u64, size as u64);
            prop_assert!(verify_inclusion(leaves[index], at, &proof, root).is_err());
            proof.pop();
            prop_assert!(verify_inclusion(leaves[index], at, &proof, root).is_err());

            let old = 1 + old.index(size - 1);
            let before = (old as u64, root_of(&leaves[..old]));
            let after = (size as u64, root);
            let mut proof = consistency_proof(&leaves, old as u64).unwrap();
            let changed = change.index(proof.len());
            proof[changed] = Digest::of(proof[changed].as_bytes());
            prop_assert!(verify_consistency(before, after, &proof).is_err());
            proof.push(root);
            prop_assert!(verify_consistency(before, after, &proof).is_err());
        }

        #[test]
        fn any_proof_gives_a_result(
            index in any::<u64>(),
            size in any::<u64>(),
            hashes in 0_usize..70,
        ) {
            let proof = leaves(hashes);
            let root = Digest::of(b"root");
            prop_assert!(verify_inclusion(root, (index, size), &proof, root).is_err()
                || (size == 1 && index == 0 && hashes == 0));
            let _ = verify_consistency((index, root), (size, root), &proof);
        }
    }
}
