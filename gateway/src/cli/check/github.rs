//! A problem as a workflow command of GitHub Actions, which shows it beside the line. It refuses to know
//! how problems are found.

use crate::policy::{Diagnostic, Severity};

/// `::error file=…,line=…,col=…,title=…::MESSAGE`, on one line.
pub(super) fn command(diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut properties = Vec::new();
    if let Some(file) = diagnostic.file() {
        properties.push(format!("file={}", property(file)));
    }
    if let Some(span) = diagnostic.span() {
        properties.push(format!("line={}", span.line));
        properties.push(format!("col={}", span.column));
    }
    properties.push("title=postern check".to_owned());
    let expected = diagnostic.expected().map(|text| format!("expected {text}"));
    let lines = [
        Some(diagnostic.message()),
        expected.as_deref(),
        diagnostic.help(),
    ];
    let message: Vec<&str> = lines.into_iter().flatten().collect();
    let (properties, message) = (properties.join(","), data(&message.join("\n")));
    format!("::{severity} {properties}::{message}")
}

/// What follows the second `::`: a line break would end the command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The value of a property: neither `,` nor `:` may end it early.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::command;
    use crate::policy::{SourceFile, compile};

    fn commands(name: &str, text: &str) -> Vec<String> {
        let file = SourceFile {
            name: name.to_owned(),
            text: text.to_owned().into(),
        };
        let diagnostics = compile(&[file]).diagnostics;
        diagnostics.iter().map(command).collect()
    }

    #[test]
    fn a_problem_is_one_command_with_its_place() {
        let text = "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {name: g}\nspec:\n  listener: []\n";
        let told = commands("policies/a,b:c%.yaml", text);
        let place = "file=policies/a%2Cb%3Ac%25.yaml,line=5,col=3,title=postern check";
        let wanted = format!(
            "::error {place}::unknown field `spec.listener`%0Adid you mean `listeners`? known fields: "
        );
        assert!(told.iter().any(|one| one.starts_with(&wanted)), "{told:#?}");
        assert!(
            told.iter().any(|one| one.starts_with("::warning file=")),
            "{told:#?}"
        );
    }

    #[test]
    fn nothing_in_a_policy_can_begin_a_command_of_its_own() {
        let text = "apiVersion: postern.dev/v1alpha1\nkind: \"x\\r\\n::error::%0Afooled\"\nmetadata: {name: g}\nspec: {}\n";
        for command in commands("a.yaml", text) {
            assert!(!command.contains(['\r', '\n']), "{command}");
            assert!(!command.contains("%0Afooled"), "{command}");
        }
    }

    #[test]
    fn a_problem_of_the_whole_folder_has_no_place() {
        let told = commands("a.yaml", "# nothing\n");
        assert!(
            told[0].starts_with("::error title=postern check::there is no EgressGateway"),
            "{told:?}"
        );
    }
}
