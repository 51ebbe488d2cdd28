//! OpenSSL's name for a certificate in a `c_rehash` directory: a hash over the canonical form of its
//! subject (X509_NAME_hash, x_name.c). Reads just enough DER to find the subject; everything
//! malformed gives `None`, and nothing is verified.

use sha1::{Digest, Sha1};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0C;
const EXPLICIT_VERSION: u8 = 0xA0;

/// The eight hexadecimal digits that `openssl x509 -hash` prints.
pub fn subject_hash(certificate: &[u8]) -> Option<String> {
    let digest = Sha1::digest(canonical_name(subject(certificate)?)?);
    let word = u32::from_le_bytes(digest.get(..4)?.try_into().ok()?);
    Some(format!("{word:08x}"))
}

/// The contents of the subject's SEQUENCE.
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?; // tbsCertificate
    if rest.first() == Some(&EXPLICIT_VERSION) {
        rest = element(rest)?.after;
    }
    for _serial_algorithm_issuer_validity in 0..4 {
        rest = element(rest)?.after;
    }
    Some(expect(rest, SEQUENCE)?.0)
}

/// The relative names, each a SET, without the SEQUENCE around them: that is what OpenSSL hashes.
fn canonical_name(mut names: &[u8]) -> Option<Vec<u8>> {
    let mut canonical = Vec::new();
    while !names.is_empty() {
        let (mut attributes, after) = expect(names, SET)?;
        names = after;
        let mut encoded = Vec::new();
        while !attributes.is_empty() {
            let (attribute, after) = expect(attributes, SEQUENCE)?;
            attributes = after;
            let object = element(attribute)?;
            let value = element(object.after)?;
            let mut contents = object.whole.to_vec();
            match to_utf8(value.tag, value.contents) {
                Some(text) => contents.extend(wrap(UTF8_STRING, &squeeze(&text))),
                None => contents.extend(value.whole),
            }
            encoded.push(wrap(SEQUENCE, &contents));
        }
        encoded.sort(); // DER: the members of a SET OF in the order of their encodings
        canonical.extend(wrap(SET, &encoded.concat()));
    }
    Some(canonical)
}

/// Strings of the types OpenSSL canonicalises (ASN1_MASK_CANON), as UTF-8.
fn to_utf8(tag: u8, contents: &[u8]) -> Option<String> {
    match tag {
        UTF8_STRING | 0x13 | 0x16 | 0x1A => String::from_utf8(contents.to_vec()).ok(),
        // T61String is taken for Latin-1.
        0x14 => Some(contents.iter().copied().map(char::from).collect()),
        // BMPString and UniversalString.
        0x1E => contents
            .chunks(2)
            .map(|unit| char::from_u32(u16::from_be_bytes(unit.try_into().ok()?).into()))
            .collect(),
        0x1C => contents
            .chunks(4)
            .map(|unit| char::from_u32(u32::from_be_bytes(unit.try_into().ok()?)))
            .collect(),
        _ => None,
    }
}

/// Lower case and single spaces, as ASCII has them; other characters stay.
fn squeeze(text: &str) -> Vec<u8> {
    text.split(|character: char| character.is_ascii_whitespace() || character == '\u{B}')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .to_ascii_lowercase()
        .into_bytes()
}

struct Element<'a> {
    tag: u8,
    contents: &'a [u8],
    whole: &'a [u8],
    after: &'a [u8],
}

fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let element = element(bytes)?;
    (element.tag == tag).then_some((element.contents, element.after))
}

/// The first element of a DER string, with a definite length of at most four bytes.
fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7F);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        rest = after;
        digits
            .iter()
            .fold(0_usize, |sum, &digit| sum << 8 | usize::from(digit))
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some(Element {
        tag,
        contents,
        whole: bytes.get(..bytes.len() - after.len())?,
        after,
    })
}

fn wrap(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut whole = vec![tag];
    let digits = contents.len().to_be_bytes();
    let skip = digits.iter().take_while(|&&digit| digit == 0).count();
    match u8::try_from(contents.len()) {
        Ok(length) if length < 0x80 => whole.push(length),
        _ => {
            // At most eight digits, so the sum fits.
            whole.extend(u8::try_from(digits.len() - skip).map(|count| 0x80 | count));
            whole.extend(&digits[skip..]);
        }
    }
    whole.extend(contents);
    whole
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn case_and_white_space_do_not_matter() {
        assert_eq!(squeeze("  Some \t ROOT  Ca "), b"some root ca");
        assert_eq!(
            squeeze("Ärger"),
            "Ärger".to_lowercase().replace('ä', "Ä").as_bytes()
        );
    }

    #[test]
    fn a_certificate_cut_anywhere_is_refused_and_never_panics() {
        let name = wrap(SEQUENCE, &[]);
        let field = wrap(0x02, &[1]);
        let body = [
            wrap(EXPLICIT_VERSION, &field),
            field.clone(),
            name.clone(),
            name.clone(),
            name.clone(),
            name,
        ]
        .concat();
        let certificate = wrap(SEQUENCE, &wrap(SEQUENCE, &body));
        assert!(subject_hash(&certificate).is_some());
        for end in 0..certificate.len() {
            assert_eq!(subject_hash(&certificate[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn long_lengths_are_written_as_they_are_read() {
        let long = wrap(SEQUENCE, &[7; 300]);
        assert_eq!(long[..4], [SEQUENCE, 0x82, 1, 44]);
        assert_eq!(element(&long).unwrap().contents.len(), 300);
    }
}
