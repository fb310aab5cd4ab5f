use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

const TOKEN: &str = "user_01H::eyx.a-b/c+d=tok\"en";

fn percent(text: &str, lower: bool, keep: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) => {
            (byte as char).to_string()
        }
        byte if lower => format!("%{byte:02x}"),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Every form in which FAULTS M88 lets a server echo the token.
fn forms() -> Vec<String> {
    let mut forms = vec![
        TOKEN.to_owned(),
        percent(TOKEN, false, "-._~"),
        percent(TOKEN, true, "-._~"),
        percent(TOKEN, false, ":/+="),
        percent(TOKEN, false, ""),
        serde_json::to_string(TOKEN).unwrap().trim_matches('"').to_owned(),
        TOKEN.replace('/', "\\/").replace('"', "\\\""),
        TOKEN.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
        TOKEN.bytes().map(|byte| format!("\\u{byte:04X}")).collect(),
    ];
    for before in ["", "a", "ab", "Bearer "] {
        for after in ["", "x", "xy"] {
            let text = format!("{before}{TOKEN}{after}");
            forms.push(STANDARD.encode(&text));
            forms.push(URL_SAFE_NO_PAD.encode(&text));
            forms.push(percent(&STANDARD.encode(&text), false, ""));
        }
    }
    forms
}

#[test]
fn m88_no_form_of_the_token_is_left() {
    let redactor = Redactor::new([TOKEN]);
    for form in forms() {
        let clean = redactor.clean(&format!("denied for {form}, sorry"));
        assert!(clean.contains(REDACTED), "{form} -> {clean}");
        assert!(clean.starts_with("denied for ") && clean.ends_with(", sorry"), "{clean}");
        // What is left of a base64 form are the characters that neighbours share.
        assert!(clean.len() < "denied for , sorry".len() + REDACTED.len() + 22, "{clean}");
    }
}

#[test]
fn m88_a_token_split_over_two_texts_is_left_in_neither() {
    let redactor = Redactor::new([TOKEN]);
    for at in 8..TOKEN.len() - 8 {
        let (head, tail) = TOKEN.split_at(at);
        assert_eq!(redactor.clean(&format!("for {head}")), format!("for {REDACTED}"));
        assert_eq!(redactor.clean(&format!("{tail} rest")), format!("{REDACTED} rest"));
    }
    let cut = percent(TOKEN, false, "");
    for at in 24..cut.len() {
        let clean = redactor.clean(&format!("for {}", &cut[..at]));
        assert!(clean.len() <= "for ".len() + REDACTED.len() + 1, "{at} {clean}");
    }
}

#[test]
fn m88_the_cut_never_shows_a_part() {
    let redactor = Redactor::new([TOKEN]);
    for fill in MAX_UNITS - 40..MAX_UNITS + 4 {
        let clean = redactor.clean(&format!("{}{TOKEN}{TOKEN}", "y".repeat(fill)));
        assert!(clean.encode_utf16().count() <= MAX_UNITS);
        assert!(!clean.contains("user"), "{clean}");
        let rest = clean.replace(REDACTED, "").replace(['y', ELLIPSIS], "");
        assert_eq!(rest, "", "a marker was cut");
    }
}

#[test]
fn h59_short_secrets_do_not_destroy_the_text() {
    let clean = |secret: &str, text: &str| Redactor::new([secret]).clean(text);
    assert_eq!(clean("", "a text"), "a text");
    assert_eq!(clean("a", "a text and a half"), "a text and a half");
    assert_eq!(clean("tok", "token tok, tok%74ok"), format!("token {REDACTED}, {REDACTED}%74ok"));
    assert_eq!(clean("tok", "stok toks t%6fk"), format!("stok toks {REDACTED}"));
    assert_eq!(clean("12345678", "x12345678x"), format!("x{REDACTED}x"));
}

#[test]
fn several_secrets_the_longest_first() {
    let redactor = Redactor::new(["prefix-of-it", "prefix-of-it-all"]);
    assert_eq!(redactor.clean("prefix-of-it-all"), REDACTED);
    assert_eq!(redactor.clean("=prefix-of-it="), format!("={REDACTED}="));
}

#[test]
fn bearer_tokens_go_out_unasked() {
    let cases = [
        ("Authorization: Bearer abc.def x", "authorization: Bearer [redacted] x"),
        ("authorization=bearer \u{feff} t'x", "authorization: Bearer [redacted]'x"),
        (
            r#"{"Authorization": "Bearer sk-1234567890"}"#,
            r#"{"Authorization": "Bearer [redacted]"}"#,
        ),
        ("bearer opaque0token0here!", "Bearer [redacted]!"),
        ("a bearer of authentication", "a bearer of authentication"),
        ("got eyJhbGci.eyJzdWIi.c2ln.", "got [redacted]."),
        ("xeyJhbGci.eyJzdWIi.c2ln", "xeyJhbGci.eyJzdWIi.c2ln"),
        ("bearer", "bearer"),
        ("authorization: basic x", "authorization: basic x"),
    ];
    for (text, expected) in cases {
        assert_eq!(clean(text), expected);
    }
}

#[test]
fn m22_one_line_without_control_characters() {
    let text = "\u{1b}[31mred\r\nlog\0 \u{202e}evil\u{9b}x\u{2028}end\ttab";
    let expected = r"\u{1b}[31mred\r\nlog\u{0} \u{202e}evil\u{9b}x\u{2028}end\ttab";
    assert_eq!(clean(text), expected);
    assert_eq!(clean("grüße 😀 漢字"), "grüße 😀 漢字");
}

#[test]
fn long_texts_are_cut_with_a_mark() {
    assert_eq!(clean(&"y".repeat(MAX_UNITS)), "y".repeat(MAX_UNITS));
    assert_eq!(clean(&"y".repeat(MAX_UNITS + 1)), format!("{}…", "y".repeat(MAX_UNITS - 1)));
    let wide = clean(&"😀".repeat(MAX_UNITS));
    assert!(wide.encode_utf16().count() <= MAX_UNITS && wide.ends_with("😀…"));
    assert!(clean(&"\0".repeat(400)).ends_with(r"\u{0}…"));
}

#[test]
fn json_values_are_cleaned_everywhere() {
    let mut value = serde_json::json!({ TOKEN: [{ "a": format!("x {TOKEN}") }, 1, null] });
    Redactor::new([TOKEN]).hide_json(&mut value);
    assert_eq!(value, serde_json::json!({ REDACTED: [{ "a": "x [redacted]" }, 1, null] }));
}

#[test]
fn debug_says_nothing_of_the_secrets() {
    assert!(!format!("{:?}", Redactor::new([TOKEN])).contains("user"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_is_cleaned_to_one_short_line(
        text in any::<String>(),
        secret in "[ -~]{8,40}",
        tail in any::<String>(),
    ) {
        let redactor = Redactor::new([&secret]);
        let clean = redactor.clean(&format!("{text}{secret}{tail}"));
        prop_assert!(clean.encode_utf16().count() <= MAX_UNITS);
        prop_assert!(!clean.chars().any(is_unprintable));
        prop_assert!(REDACTED.contains(&secret) || !clean.contains(&secret));
    }
}
