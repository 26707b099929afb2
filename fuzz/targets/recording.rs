//! Whatever bytes a recording has, what is read of them is written and read again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use probe_user::{
    recording::{Encoder, Frame, Recording},
    replay::Survey,
};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // A checksum is not guessed: with them put right, what lies behind them is read as well.
    let mut mended = bytes.to_vec();
    mend(&mut mended);
    read(&mended);
});

fn read(bytes: &[u8]) {
    let Ok(recording) = Recording::open(bytes) else {
        return;
    };
    let survey = Survey::of(recording.clone());
    let header = recording.header().clone();
    let mut reading = recording;
    let frames: Vec<Frame> = reading.by_ref().collect();
    assert_eq!(reading.loss(), survey.loss);
    if let Some(loss) = survey.loss {
        assert!(loss.at <= bytes.len());
    }

    let mut again = Vec::new();
    let mut encoder = Encoder::begin(&header, &mut again);
    for frame in &frames {
        encoder.frame(frame, &mut again);
    }
    let reread = Recording::open(&again).expect("what was written opens");
    assert_eq!(*reread.header(), header);
    assert!(reread.eq(frames), "what was written is read as it was");
}

/// Puts the checksum of each frame right, as far as the lengths lead.
fn mend(bytes: &mut [u8]) {
    const START: usize = 10;
    let mut at = START;
    while let Some(prefix) = bytes.get(at..at + 8) {
        let length: [u8; 4] = prefix[..4].try_into().expect("four bytes");
        let size = u32::from_le_bytes(length) as usize;
        let Some(body) = bytes.get(at + 8..).and_then(|rest| rest.get(..size)) else {
            return;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&length);
        hasher.update(body);
        let sum = hasher.finalize().to_le_bytes();
        bytes[at + 4..at + 8].copy_from_slice(&sum);
        at += 8 + size;
    }
}
