//! `tls-ciphers` and `tls-ciphersuites`: OpenSSL's names for what rustls has.
//!
//! The lists of Redis are expressions that OpenSSL evaluates over many suites. All that are here
//! are strong, so the words for kinds of weak ones ask for nothing.

use rustls::CipherSuite;

use crate::config::Text;

/// Of TLS 1.2, the preferred ones first.
const SUITES_OF_1_2: [(&str, CipherSuite); 6] = {
    use CipherSuite::*;
    [
        ("ECDHE-ECDSA-AES256-GCM-SHA384", TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-RSA-AES256-GCM-SHA384", TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-RSA-CHACHA20-POLY1305", TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("ECDHE-RSA-AES128-GCM-SHA256", TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ]
};

const SUITES_OF_1_3: [(&str, CipherSuite); 3] = {
    use CipherSuite::*;
    [
        ("TLS_AES_256_GCM_SHA384", TLS13_AES_256_GCM_SHA384),
        ("TLS_CHACHA20_POLY1305_SHA256", TLS13_CHACHA20_POLY1305_SHA256),
        ("TLS_AES_128_GCM_SHA256", TLS13_AES_128_GCM_SHA256),
    ]
};

/// Words for all suites.
const EVERYTHING: [&str; 4] = ["DEFAULT", "ALL", "HIGH", "ECDHE"];

/// Kinds of which none is here: leaving them out is done.
const ABSENT: [&str; 25] = [
    "aNULL", "eNULL", "NULL", "LOW", "MEDIUM", "EXPORT", "EXP", "RC2", "RC4", "DES", "3DES", "MD5",
    "SHA1", "SHA", "PSK", "SRP", "DSS", "aDSS", "ADH", "AECDH", "CAMELLIA", "SEED", "IDEA", "kRSA",
    "DH",
];

/// The suites of both lists; an empty list means all.
pub fn wanted(ciphers: &Text, ciphersuites: &Text) -> Result<Vec<CipherSuite>, String> {
    let old = old_suites(&ciphers.to_string())?;
    let new = new_suites(&ciphersuites.to_string())?;
    Ok([new, old].concat())
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split([':', ',', ' ', ';']).filter(|word| !word.is_empty())
}

fn old_suites(list: &str) -> Result<Vec<CipherSuite>, String> {
    let list = if list.is_empty() { "DEFAULT" } else { list };
    let failed = |why: &str| format!("Failed to configure ciphers: {list}{why}");
    let named = |name: &str| SUITES_OF_1_2.iter().find(|(known, _)| *known == name);
    let mut chosen: Vec<CipherSuite> = Vec::new();
    for word in words(list) {
        if let Some(unwanted) = word.strip_prefix(['!', '-']) {
            match named(unwanted) {
                Some((_, suite)) => chosen.retain(|chosen| chosen != suite),
                None if ABSENT.contains(&unwanted) => {}
                None => return Err(failed(&format!(" ('{word}' is not understood)"))),
            }
        } else if EVERYTHING.contains(&word) {
            let missing = SUITES_OF_1_2.iter().filter(|(_, suite)| !chosen.contains(suite));
            let missing: Vec<_> = missing.map(|(_, suite)| *suite).collect();
            chosen.extend(missing);
        } else if let Some((_, suite)) = named(word) {
            if !chosen.contains(suite) {
                chosen.push(*suite);
            }
        } else if !word.contains('-') && !word.starts_with('@') {
            // With a dash in it, it is one of OpenSSL's suites that is not here.
            return Err(failed(&format!(" ('{word}' is not understood)")));
        }
    }
    if chosen.is_empty() { Err(failed(" (no suite is left)")) } else { Ok(chosen) }
}

fn new_suites(list: &str) -> Result<Vec<CipherSuite>, String> {
    if list.is_empty() {
        return Ok(SUITES_OF_1_3.iter().map(|(_, suite)| *suite).collect());
    }
    let failed = || format!("Failed to configure ciphersuites: {list}");
    let known = |name: &str| SUITES_OF_1_3.iter().find(|(known, _)| *known == name);
    let chosen: Option<Vec<_>> = words(list).map(|name| Some(known(name)?.1)).collect();
    chosen.filter(|chosen| !chosen.is_empty()).ok_or_else(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_openssl_are_understood() {
        let names = |list: &str| -> Result<Vec<&str>, String> {
            let name = |suite: CipherSuite| {
                SUITES_OF_1_2.iter().find(|(_, known)| *known == suite).unwrap().0
            };
            Ok(old_suites(list)?.into_iter().map(name).collect())
        };
        let all: Vec<&str> = SUITES_OF_1_2.iter().map(|(name, _)| *name).collect();
        assert_eq!(names("").unwrap(), all);
        assert_eq!(names("DEFAULT:!MEDIUM").unwrap(), all);
        assert_eq!(names("HIGH:!aNULL:!ECDHE-RSA-AES128-GCM-SHA256").unwrap(), all[..5]);
        assert_eq!(names("AES256-SHA:ECDHE-RSA-AES256-GCM-SHA384").unwrap(), [all[1]]);
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256 HIGH").unwrap()[..2], [all[5], all[0]]);
        for list in ["AES256-SHA", "nonsense", "DEFAULT:!AES", ":"] {
            let error = names(list).unwrap_err();
            assert!(error.starts_with("Failed to configure ciphers: "), "{error}");
        }
    }

    #[test]
    fn suites_of_1_3_are_a_plain_list() {
        assert_eq!(new_suites("").unwrap().len(), 3);
        let two = new_suites("TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384").unwrap();
        assert_eq!(two, [SUITES_OF_1_3[2].1, SUITES_OF_1_3[0].1]);
        for list in ["AES", ":", "TLS_AES_128_GCM_SHA256:TLS_NOPE"] {
            assert_eq!(
                new_suites(list).unwrap_err(),
                format!("Failed to configure ciphersuites: {list}")
            );
        }
    }
}
