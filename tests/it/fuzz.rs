//! What reads bytes of others bears any: each surface is fed with the corpus of
//! `tests/fuzz`, and with what becomes of that by small changes. Long runs are
//! libFuzzer's, see `tests/fuzz/Cargo.toml`.

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;

use taskdaemon::clock;
use taskdaemon::surfaces;

/// Changed copies of each seed.
const CHANGES: u64 = 200;
/// Longest time that one input may take: a thousand times what the slowest
/// takes, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers that look drawn and are the same in each run (xorshift64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end.max(1)).expect("size")).expect("size")
    }
}

/// Bytes that mean something somewhere.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t \"'\\/[]{}(),:;=*~-+.%&#@!|<>0123456789eE";

/// A seed with up to four changes.
fn changed(seed: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=draw.below(4) {
        let at = draw.below(bytes.len() + 1);
        let byte = TELLING[draw.below(TELLING.len())];
        match draw.below(5) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            3 => bytes.truncate(at),
            _ => {
                // A part once more, somewhere else.
                let end = at + draw.below(bytes.len() - at + 1);
                let part = bytes[at..end].to_vec();
                let to = draw.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let entries = fs::read_dir(dir.join(name)).expect("a corpus for each surface");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("read"));
    paths.into_iter().map(read).collect()
}

/// How long each surface is to be fed: once through, unless `FUZZ_SECONDS` says
/// longer.
fn asked_for() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[test]
fn no_bytes_make_a_surface_panic_or_linger() {
    let mut wrong = Vec::new();
    for (name, read) in surfaces::ALL {
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name} has no corpus to speak of");
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
        let start = clock::instant();
        let mut count = 0_u64;
        for (path, seed) in seeds.iter().cycle() {
            // Everyone has had their share, and the time that was asked for is over.
            let whole = count >= u64::try_from(seeds.len()).expect("count");
            if whole && start.elapsed() >= asked_for() {
                break;
            }
            for number in 0..=CHANGES {
                count += u64::from(number == 0);
                let bytes = match number {
                    0 => seed.clone(),
                    _ => changed(seed, &mut draw),
                };
                let begun = clock::instant();
                let done = catch_unwind(|| read(&bytes));
                let took = begun.elapsed();
                if done.is_err() || took > PATIENCE {
                    let text = bytes.escape_ascii();
                    wrong.push(format!("{name}, from {}: {took:?}: {text}", path.display()));
                }
            }
        }
        println!("{name}: {} inputs", count * (CHANGES + 1));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
