//! Rules of house style that a machine can check: file headers, file length,
//! ignored tests, and paths or hosts of somebody's machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// No hand-written source file is longer.
const LINES_MAX: usize = 600;

/// Fails with every place that breaks a rule.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    for folder in ["proto", "services", "loadtest"] {
        collect(&root.join(folder), &mut files)?;
    }
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        wrong.extend(problems(&name, &text));
    }
    if wrong.is_empty() {
        println!("{} source files are tidy", files.len());
        return Ok(());
    }
    bail!("tidy rules broken:\n  {}", wrong.join("\n  "))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["node_modules", "target", "dist", "corpus", "artifacts"].contains(&name) {
                collect(&path, files)?;
            }
        } else if ["rs", "ts"]
            .iter()
            .any(|extension| path.extension().is_some_and(|own| own == *extension))
        {
            files.push(path);
        }
    }
    Ok(())
}

fn problems(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{name}: {lines} lines, more than {LINES_MAX}"));
    }
    let is_rust = name.ends_with(".rs");
    let opens_well = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if is_rust && !opens_well.is_some_and(|line| line.starts_with("//!")) {
        wrong.push(format!("{name}: does not open with `//!`"));
    }
    let ignored = concat!("#[", "ignore");
    if text.contains(ignored) {
        wrong.push(format!("{name}: has an ignored test"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_headless_file_is_found() {
        assert_eq!(problems("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(problems("a.rs", &format!("//! A.\n{}", "\n".repeat(700))).len(), 1);
        assert!(problems("a.rs", "//! A.\n").is_empty());
        assert!(problems("a.ts", "export {}\n").is_empty());
    }
}
