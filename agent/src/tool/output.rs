//! Bounding what a tool gives the model.

use agentwire::context::Part;

/// How much of a tool's output the model sees. What is too long keeps its head and its tail, with
/// a line between them that says how much is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes of the beginning that are kept of all text of one output. Default 24 KiB.
    pub head: usize,
    /// Bytes of the end. Default 8 KiB: about 8,000 tokens in all, what a person would read too.
    pub tail: usize,
    /// Images of one output. Default 8.
    pub images: usize,
    /// Bytes of base64 of one image. Default 5 MiB; a larger one is replaced by a line of text.
    pub image: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { head: 24 << 10, tail: 8 << 10, images: 8, image: 5 << 20 }
    }
}

impl OutputLimits {
    /// The parts within the limits. Each text is clipped by itself; together they share the limit.
    pub(super) fn clip(&self, parts: Vec<Part>) -> Vec<Part> {
        let mut images = 0;
        let (mut head, mut tail) = (self.head, self.tail);
        let mut clip = |part| match part {
            Part::Text { text } => {
                let clipped = middle_out(&text, head, tail);
                let used = clipped.len().min(head + tail);
                tail = tail.saturating_sub(used.saturating_sub(head));
                head = head.saturating_sub(used);
                Part::Text { text: clipped }
            }
            Part::Image(image) if images < self.images && image.data.len() <= self.image => {
                images += 1;
                Part::Image(image)
            }
            Part::Image(image) => {
                let bytes = image.data.len();
                Part::Text { text: format!("[an image of {bytes} base64 bytes was left out]") }
            }
        };
        parts.into_iter().map(&mut clip).collect()
    }
}

/// The first `head` and the last `tail` bytes, at character boundaries.
fn middle_out(text: &str, head: usize, tail: usize) -> String {
    if text.len() <= head.saturating_add(tail) {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(head);
    let tail = text.ceil_char_boundary(text.len() - tail);
    let missing = tail - head;
    format!("{}\n[... {missing} bytes left out ...]\n{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentwire::context::Image;

    #[test]
    fn long_text_keeps_head_and_tail() {
        assert_eq!(middle_out("abcdef", 3, 3), "abcdef");
        assert_eq!(middle_out("abcdefg", 3, 3), "abc\n[... 1 bytes left out ...]\nefg");
        // Never inside a character.
        assert_eq!(middle_out("ééééé", 3, 3), "é\n[... 6 bytes left out ...]\né");
    }

    #[test]
    fn images_are_counted_and_bounded() {
        let limits = OutputLimits { images: 1, image: 4, head: 100, tail: 100 };
        let image =
            |data: &str| Part::Image(Image { data: data.into(), mime_type: "image/png".into() });
        let clipped = limits.clip(vec![image("aaaaaaaa"), image("aaaa"), image("bbbb")]);
        let kept = clipped.iter().filter(|part| matches!(part, Part::Image(_))).count();
        assert_eq!((kept, clipped.len()), (1, 3));
    }

    #[test]
    fn texts_share_the_limit() {
        let limits = OutputLimits { head: 10, tail: 4, ..OutputLimits::default() };
        let text = || Part::Text { text: "x".repeat(100) };
        let clipped = limits.clip(vec![text(), text(), text()]);
        let kept: usize = clipped
            .iter()
            .map(|part| match part {
                Part::Text { text } => text.matches('x').count(),
                Part::Image(_) => 0,
            })
            .sum();
        assert_eq!(kept, 14);
    }
}
