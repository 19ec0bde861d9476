//! Quantised bytes against those of gguf-py and llama.cpp (golden/make_quants.py).

mod fixture;

use fixture::fixture;
use foundry_formats::StoredDtype;
use foundry_formats::gguf::Gguf;
use serde_json::Value;

const TYPES: [(&str, StoredDtype); 10] = [
    ("Q4_0", StoredDtype::Q4_0),
    ("Q4_1", StoredDtype::Q4_1),
    ("Q5_0", StoredDtype::Q5_0),
    ("Q5_1", StoredDtype::Q5_1),
    ("Q8_0", StoredDtype::Q8_0),
    ("Q2_K", StoredDtype::Q2K),
    ("Q3_K", StoredDtype::Q3K),
    ("Q4_K", StoredDtype::Q4K),
    ("Q5_K", StoredDtype::Q5K),
    ("Q6_K", StoredDtype::Q6K),
];

/// The same numbers as the script's: ordinary, positive, mostly zero and tiny, constant, with outliers, all below -1,
/// zero, peaked.
fn values() -> Vec<f32> {
    let mut state = 42u64;
    let mut value = |row: usize, column: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let v = ((state >> 48) as f64 - 32768.0) * 2f64.powi(-18);
        (match row {
            1 => v.abs(),
            2 if column < 100 => 0.0,
            2 => v * 2f64.powi(-20),
            3 => 0.5,
            4 if (state >> 20).is_multiple_of(64) => v * 32.0,
            5 => -v.abs() - 1.0,
            6 => 0.0,
            7 => v.powi(3) * 512.0,
            _ => v,
        }) as f32
    };
    (0..8).flat_map(|row| (0..256).map(move |column| (row, column))).map(|(r, c)| value(r, c)).collect()
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("gguf/quants.json")).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_are_the_peers() {
    let (values, golden) = (values(), golden());
    for (name, dtype) in TYPES {
        let ours = Gguf::quantise(dtype, &values, 1);
        let block = 2 * dtype.block().1;
        let theirs = golden[name].as_str().unwrap();
        for (i, ours) in hex(&ours).as_bytes().chunks(block).enumerate() {
            let theirs = &theirs.as_bytes()[i * block..(i + 1) * block];
            assert_eq!(std::str::from_utf8(ours), std::str::from_utf8(theirs), "{name}, block {i}");
        }
    }
}

#[test]
fn threads_change_no_byte() {
    let many: Vec<f32> = values().into_iter().cycle().take(64 * 1024 + 256).collect();
    for (name, dtype) in TYPES {
        let one = Gguf::quantise(dtype, &many, 1);
        assert!((2..5).all(|threads| Gguf::quantise(dtype, &many, threads) == one), "{name}");
    }
}

#[test]
fn hostile_numbers_do_not_panic() {
    let extremes = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -1e-45, 0.0, -0.0, 65504.0, 1e30];
    for (_, dtype) in TYPES {
        for first in extremes {
            for second in extremes {
                let values: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { first } else { second }).collect();
                let bytes = Gguf::quantise(dtype, &values, 1);
                assert_eq!(bytes.len(), dtype.bytes_of(256).unwrap());
            }
        }
    }
}

/// Blocks found at random where one rounding of x·(1/d) + half gives another code; bytes by gguf-py 0.19.
#[test]
fn product_and_sum_are_rounded_one_after_the_other() {
    for (dtype, extreme, value, bytes) in [
        (StoredDtype::Q4_0, 1_075_276_310, 1_070_608_863, "bbb480838888888888888888888888888888"),
        (StoredDtype::Q5_0, 3_222_148_555, 3_203_966_502, "7130fcffffff000d0000000000000000000000000000"),
    ] {
        let mut values = [0.0; 32];
        (values[0], values[1]) = (f32::from_bits(extreme), f32::from_bits(value));
        assert_eq!(hex(&Gguf::quantise(dtype, &values, 1)), bytes, "{dtype}");
    }
}
