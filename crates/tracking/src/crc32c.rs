//! CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), by a table of 256 numbers.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = if rest & 1 == 1 { rest >> 1 ^ 0x82f6_3b78 } else { rest >> 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

/// The checksum of `bytes`.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

/// The checksum as TFRecord stores it: a checksum of checksums would otherwise be weak.
pub(crate) fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        let rising: Vec<u8> = (0..32).collect();
        let found = [crc32c(&[0; 32]), crc32c(&[0xff; 32]), crc32c(&rising), crc32c(b"123456789")];
        assert_eq!(found, [0x8a91_36aa, 0x62a8_ab43, 0x46dd_794e, 0xe306_9283]);
    }
}
