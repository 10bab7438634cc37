//! Numbers and foreign text as they go into pages and tables.

/// A number for people: thousands set apart, two to three digits that matter.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let size = value.abs();
    if size != 0.0 && size < 10.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    if size < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", size);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// Foreign text inside HTML or SVG, in attributes too.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.251, 9.0, 42.42, 999.6, 12_345.0, 1_234_567.0, -1_500.0].map(number);
        assert_eq!(texts, ["0", "0.25", "9", "42.4", "1,000", "12,345", "1,234,567", "-1,500"]);
    }
}
