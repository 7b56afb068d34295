//! A tree of lines, as a person reads it. Must not know what the lines mean.

use super::look::{Look, Tone};

/// A line with what belongs under it. Whoever makes the text escapes it.
#[derive(Clone, Debug)]
pub struct Branch {
    title: String,
    text: String,
    tone: Tone,
    under: Vec<Self>,
}

// === impl Branch ===

impl Branch {
    /// A branch whose line is `title`, then `text`.
    pub fn new(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self { title: title.into(), text: text.into(), tone: Tone::Plain, under: Vec::new() }
    }

    /// The same branch with its text in another tone.
    #[must_use]
    pub fn toned(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// The same branch with more under it.
    #[must_use]
    pub fn with(mut self, under: impl IntoIterator<Item = Self>) -> Self {
        self.under.extend(under);
        self
    }

    /// All lines.
    pub fn render(&self, look: &Look) -> String {
        let mut text = String::new();
        text.push_str(&self.line(0, look));
        self.render_under("", look, &mut text);
        text
    }

    fn line(&self, width: usize, look: &Look) -> String {
        let padding = match self.text.is_empty() {
            true => 0,
            false => width.saturating_sub(self.title.chars().count()),
        };
        let gap = if self.text.is_empty() || self.title.is_empty() { "" } else { "  " };
        let title = look.paint(Tone::Strong, &self.title);
        let text = look.paint(self.tone, &self.text);
        format!("{title}{}{gap}{text}\n", " ".repeat(padding))
    }

    fn render_under(&self, indent: &str, look: &Look, text: &mut String) {
        let titles = self.under.iter().map(|branch| branch.title.chars().count());
        let width = titles.max().unwrap_or(0);
        let last = self.under.len().saturating_sub(1);
        for (number, branch) in self.under.iter().enumerate() {
            let (fork, rail) =
                if number == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            text.push_str(&look.paint(Tone::Dim, &format!("{indent}{fork}")));
            text.push_str(&branch.line(width, look));
            branch.render_under(&format!("{indent}{rail}"), look, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Branch;
    use crate::cli::look::tests::look;
    use expect_test::expect;

    #[test]
    fn a_tree_shows_what_belongs_where() {
        let leaf = |title: &str| Branch::new(title, "text");
        let tree = Branch::new("root", "")
            .with([leaf("a").with([leaf("b"), leaf("longer")]), Branch::new("c", "")])
            .with([Branch::new("", "untitled")]);
        expect![[r#"
            root
            ├─ a  text
            │  ├─ b       text
            │  └─ longer  text
            ├─ c
            └─  untitled
        "#]]
        .assert_eq(&tree.render(&look()));
    }
}
