//! Tokens that must not get in, each with the reason for which it is refused.

use super::*;

#[test]
fn every_forged_or_odd_token_is_refused_for_its_reason() {
    use TokenError as E;
    let good = signed(good_claims());
    assert!(ring().verify(&good, NOW).is_ok(), "the forgeries are made from a good token");
    let (header, claims, signature) = parts(&good);
    let plain = good_claims().to_string();
    let hs512 = {
        let signed = format!("{}.{claims}", b64(r#"{"alg":"HS512","typ":"JWT"}"#));
        let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
        format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())))
    };
    let hs384 = {
        let signed = format!("{}.{claims}", b64(r#"{"alg":"HS384","typ":"JWT"}"#));
        let key = hmac::Key::new(hmac::HMAC_SHA384, SECRET.as_bytes());
        format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())))
    };
    let none = format!("{}.{claims}.", b64(r#"{"alg":"none","typ":"JWT"}"#));
    let flipped = {
        let mut bytes = URL_SAFE_NO_PAD.decode(&signature).unwrap();
        bytes[31] ^= 1;
        b64(bytes)
    };
    let half_signature = b64(&URL_SAFE_NO_PAD.decode(&signature).unwrap()[..16]);
    let swapped = b64(with(|c| c["sub"] = json!("root")).to_string());
    let duplicate = |name: &str, value: &str| {
        let text = format!(r#"{{"{name}":{value},{}"#, &plain[1..]);
        raw(r#"{"alg":"HS256"}"#, &text, SECRET)
    };
    let headed = |header: &str| raw(header, &plain, SECRET);
    let table: Vec<(&str, String, E)> = vec![
        ("nothing", String::new(), E::Missing),
        ("no part", "x".into(), E::Malformed),
        ("one dot", "a.b".into(), E::Malformed),
        ("only dots", "..".into(), E::Malformed),
        ("four parts", format!("{good}.{signature}"), E::Malformed),
        ("JWE with five parts", "a.b.c.d.e".into(), E::Malformed),
        ("alg none, unsigned", none.clone(), E::Algorithm),
        ("alg none, old signature", format!("{}{signature}", none), E::Algorithm),
        ("alg none, signed by HS256", headed(r#"{"alg":"none"}"#), E::Algorithm),
        ("alg None in another case", headed(r#"{"alg":"nOnE"}"#), E::Algorithm),
        ("alg hs256 in another case", headed(r#"{"alg":"hs256"}"#), E::Algorithm),
        ("alg with a space", headed(r#"{"alg":"HS256 "}"#), E::Algorithm),
        ("alg with a NUL", headed(r#"{"alg":"HS256\u0000"}"#), E::Algorithm),
        ("alg in full-width letters", headed(r#"{"alg":"ＨＳ256"}"#), E::Algorithm),
        ("alg empty", headed(r#"{"alg":""}"#), E::Algorithm),
        ("alg RS256, HMAC of the secret", headed(r#"{"alg":"RS256"}"#), E::Algorithm),
        ("alg ES256", headed(r#"{"alg":"ES256"}"#), E::Algorithm),
        ("alg EdDSA", headed(r#"{"alg":"EdDSA"}"#), E::Algorithm),
        ("alg HS512, rightly signed", hs512.clone(), E::Algorithm),
        ("alg HS384, rightly signed", hs384, E::Algorithm),
        (
            "HS512 signature under HS256",
            format!("{header}.{claims}.{}", parts(&hs512).2),
            E::BadSignature,
        ),
        ("no alg", headed(r#"{"typ":"JWT"}"#), E::Malformed),
        ("alg null", headed(r#"{"alg":null}"#), E::Malformed),
        ("alg a list", headed(r#"{"alg":["HS256"]}"#), E::Malformed),
        ("alg twice", headed(r#"{"alg":"HS256","alg":"none"}"#), E::Malformed),
        ("crit extension", headed(r#"{"alg":"HS256","crit":["x"],"x":1}"#), E::Algorithm),
        ("unencoded payload", headed(r#"{"alg":"HS256","b64":false}"#), E::Algorithm),
        ("header no object", headed("[]"), E::Malformed),
        ("header with rubbish after", headed(r#"{"alg":"HS256"} x"#), E::Malformed),
        ("header no UTF-8", format!("{}.{claims}.{signature}", b64([0xff, 0xfe])), E::Malformed),
        ("header cut", good[1..].into(), E::Malformed),
        ("header gone", format!(".{claims}.{signature}"), E::Malformed),
        (
            "claims cut",
            format!("{header}.{}.{signature}", &claims[..claims.len() - 4]),
            E::Malformed,
        ),
        ("claims gone", format!("{header}..{signature}"), E::Malformed),
        ("claims changed", format!("{header}.{swapped}.{signature}"), E::BadSignature),
        ("signature cut", format!("{header}.{claims}.{half_signature}"), E::BadSignature),
        ("signature by one character short", good[..good.len() - 1].into(), E::Malformed),
        ("signature empty", format!("{header}.{claims}."), E::BadSignature),
        ("signature flipped by a bit", format!("{header}.{claims}.{flipped}"), E::BadSignature),
        ("signature of zeros", format!("{header}.{claims}.{}", b64([0; 32])), E::BadSignature),
        ("signature too long", format!("{good}AAAA"), E::BadSignature),
        ("signature padded", format!("{good}="), E::Malformed),
        ("standard base64", good.replace('_', "/") + "+", E::Malformed),
        ("space before", format!(" {good}"), E::Malformed),
        ("line break after", format!("{good}\n"), E::Malformed),
        ("space within", format!("{header}.{claims} .{signature}"), E::Malformed),
        ("with its scheme", format!("Bearer {good}"), E::Malformed),
        ("dots of another script", good.replace('.', "。"), E::Malformed),
        ("other secret", raw(r#"{"alg":"HS256"}"#, &plain, "Secret"), E::BadSignature),
        ("empty secret", raw(r#"{"alg":"HS256"}"#, &plain, ""), E::BadSignature),
        ("secret with a NUL", raw(r#"{"alg":"HS256"}"#, &plain, "secret\0x"), E::BadSignature),
        ("unknown key", signed(with(|c| c["iss"] = json!("other"))), E::UnknownKey),
        ("key in another case", signed(with(|c| c["iss"] = json!("DevKey"))), E::UnknownKey),
        (
            "key with a look-alike",
            signed(with(|c| c["iss"] = json!("d\u{435}vkey"))),
            E::UnknownKey,
        ),
        ("key with a space", signed(with(|c| c["iss"] = json!("devkey "))), E::UnknownKey),
        ("key empty", signed(with(|c| c["iss"] = json!(""))), E::UnknownKey),
        ("key null", signed(with(|c| c["iss"] = Value::Null)), E::UnknownKey),
        (
            "key absent",
            signed(with(|c| {
                c.as_object_mut().unwrap().remove("iss");
            })),
            E::UnknownKey,
        ),
        ("key a number", signed(with(|c| c["iss"] = json!(7))), E::Malformed),
        (
            "key by kid only",
            raw(r#"{"alg":"HS256","kid":"devkey"}"#, r#"{"exp":9999999999}"#, SECRET),
            E::UnknownKey,
        ),
        ("issuer twice", duplicate("iss", r#""devkey""#), E::Malformed),
        ("subject twice", duplicate("sub", r#""root""#), E::Malformed),
        ("expiry twice", duplicate("exp", "99999999999"), E::Malformed),
        ("grant twice", duplicate("video", r#"{"roomAdmin":true}"#), E::Malformed),
        ("escaped name, so twice", duplicate(r"s\u0075b", r#""root""#), E::Malformed),
        (
            "flag twice in the grant",
            signed_text(
                r#"{"iss":"devkey","exp":1700000600,"video":{"roomAdmin":false,"roomAdmin":true}}"#,
            ),
            E::Malformed,
        ),
        (
            "attribute twice",
            signed_text(r#"{"iss":"devkey","exp":1700000600,"attributes":{"a":"1","a":"2"}}"#),
            E::Malformed,
        ),
        ("expired", signed(with(|c| c["exp"] = json!(NOW - 61))), E::Expired),
        ("expired long ago", signed(with(|c| c["exp"] = json!(0))), E::Expired),
        ("expiry negative", signed(with(|c| c["exp"] = json!(-1))), E::Expired),
        (
            "expiry absent",
            signed(with(|c| {
                c.as_object_mut().unwrap().remove("exp");
            })),
            E::NoExpiry,
        ),
        ("expiry null", signed(with(|c| c["exp"] = Value::Null)), E::NoExpiry),
        ("expiry a text", signed(with(|c| c["exp"] = json!("9999999999"))), E::Malformed),
        ("expiry no number", signed_text(r#"{"iss":"devkey","exp":NaN}"#), E::Malformed),
        ("expiry infinite", signed_text(r#"{"iss":"devkey","exp":1e999}"#), E::Malformed),
        ("not yet valid", signed(with(|c| c["nbf"] = json!(NOW + 61))), E::NotYetValid),
        ("valid at the end of time", signed(with(|c| c["nbf"] = json!(u64::MAX))), E::NotYetValid),
        ("start a text", signed(with(|c| c["nbf"] = json!("now"))), E::Malformed),
        ("subject a number", signed(with(|c| c["sub"] = json!(7))), E::Malformed),
        ("grant a list", signed(with(|c| c["video"] = json!(["roomAdmin"]))), E::Malformed),
        ("flag a text", signed(with(|c| c["video"]["roomAdmin"] = json!("true"))), E::Malformed),
        ("flag a number", signed(with(|c| c["video"]["roomAdmin"] = json!(1))), E::Malformed),
        (
            "sources a text",
            signed(with(|c| c["video"]["canPublishSources"] = json!("camera"))),
            E::Malformed,
        ),
        ("attribute a number", signed(with(|c| c["attributes"] = json!({"a": 1}))), E::Malformed),
        ("claims no object", signed(json!([1, 2])), E::Malformed),
        ("claims empty", signed(json!({})), E::UnknownKey),
        (
            "half a surrogate",
            signed_text(r#"{"iss":"devkey","exp":1700000600,"sub":"\ud800"}"#),
            E::Malformed,
        ),
        ("no UTF-8", not_utf8(), E::Malformed),
        (
            "deeply nested where we do not look",
            signed_text(&format!(
                r#"{{"iss":"devkey","x":{}{}}}"#,
                "[".repeat(5000),
                "]".repeat(5000)
            )),
            E::NoExpiry,
        ),
        (
            "deeply nested header",
            headed(&format!(
                r#"{{"alg":"HS256","crit":{}{}}}"#,
                "[".repeat(5000),
                "]".repeat(5000)
            )),
            E::Malformed,
        ),
        ("huge", signed(with(|c| c["metadata"] = json!("x".repeat(TOKEN_BYTES_MAX)))), E::TooLong),
        ("huge rubbish", ".".repeat(TOKEN_BYTES_MAX + 1), E::TooLong),
    ];
    assert!(table.len() >= 40);
    for (what, token, expected) in table {
        assert_eq!(ring().verify(&token, NOW), Err(expected), "{what}");
    }
}

fn not_utf8() -> String {
    let signed =
        format!("{}.{}", b64(r#"{"alg":"HS256"}"#), b64(b"{\"iss\":\"devkey\",\"sub\":\"\xff\"}"));
    let signature = hs256(SECRET, &signed);
    format!("{signed}.{}", b64(signature))
}
