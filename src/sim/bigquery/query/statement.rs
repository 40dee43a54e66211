//! The parser of `` ALTER TABLE `p.d.t` ALTER COLUMN c SET DATA TYPE T ``.

/// One parsed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alter {
    /// The project, where the name has three parts.
    pub project: Option<String>,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
    /// The top-level column.
    pub column: String,
    /// The type it is to have.
    pub ty: SqlType,
}

/// A type in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlType {
    /// A scalar under its REST name, with its REST parameters.
    Scalar {
        /// The REST name.
        name: &'static str,
        /// `precision`, `scale`, `maxLength`.
        parameters: Vec<(&'static str, u64)>,
    },
    /// `STRUCT<name type, …>`.
    Struct(Vec<(String, SqlType)>),
    /// `ARRAY<type>`.
    Array(Box<SqlType>),
}

/// Parses the statement; the error is a message for the client.
pub fn parse(text: &str) -> Result<Alter, String> {
    let mut tokens = Tokens { rest: tokenise(text)?.into_iter().peekable(), depth: 0 };
    tokens.words(&["ALTER", "TABLE"])?;
    let name = tokens.name()?;
    tokens.words(&["ALTER", "COLUMN"])?;
    let column = tokens.name()?;
    tokens.words(&["SET", "DATA", "TYPE"])?;
    let ty = tokens.ty()?;
    if tokens.rest.peek().is_some_and(|token| token == ";") {
        tokens.rest.next();
    }
    if let Some(token) = tokens.rest.next() {
        return Err(format!("Syntax error: Unexpected \"{token}\""));
    }
    let parts: Vec<&str> = name.split('.').collect();
    let (project, dataset, table) = match parts.as_slice() {
        [dataset, table] => (None, *dataset, *table),
        [project, dataset, table] => (Some((*project).to_owned()), *dataset, *table),
        _ => return Err(format!("Table name \"{name}\" must be qualified with a dataset")),
    };
    Ok(Alter { project, dataset: dataset.into(), table: table.into(), column, ty })
}

/// Words, quoted names (without their backquotes) and single punctuation characters.
fn tokenise(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut token = String::new();
        if c == '`' {
            loop {
                match chars.next() {
                    Some('`') => break,
                    Some(c) => token.push(c),
                    None => return Err("Syntax error: Unclosed identifier literal".to_owned()),
                }
            }
        } else {
            token.push(c);
            let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
            while word(c) && chars.peek().copied().is_some_and(word) {
                token.extend(chars.next());
            }
        }
        tokens.push(token);
    }
    Ok(tokens)
}

struct Tokens {
    rest: std::iter::Peekable<std::vec::IntoIter<String>>,
    depth: usize,
}

impl Tokens {
    fn words(&mut self, expected: &[&str]) -> Result<(), String> {
        for word in expected {
            match self.rest.next() {
                Some(token) if token.eq_ignore_ascii_case(word) => {}
                Some(token) => {
                    return Err(format!("Syntax error: Expected {word} but got \"{token}\""));
                }
                None => return Err(format!("Syntax error: Expected {word} but got end of script")),
            }
        }
        Ok(())
    }

    fn name(&mut self) -> Result<String, String> {
        self.rest.next().ok_or_else(|| "Syntax error: Unexpected end of script".to_owned())
    }

    fn ty(&mut self) -> Result<SqlType, String> {
        self.depth += 1;
        if self.depth > 20 {
            return Err("Type is nested too deeply".to_owned());
        }
        let word = self.name()?.to_ascii_uppercase();
        let ty = match word.as_str() {
            "ARRAY" => {
                self.words(&["<"])?;
                let item = self.ty()?;
                self.words(&[">"])?;
                SqlType::Array(Box::new(item))
            }
            "STRUCT" => SqlType::Struct(self.members()?),
            scalar => self.scalar(scalar)?,
        };
        self.depth -= 1;
        Ok(ty)
    }

    fn members(&mut self) -> Result<Vec<(String, SqlType)>, String> {
        self.words(&["<"])?;
        let mut members = Vec::new();
        loop {
            let name = self.name()?;
            members.push((name, self.ty()?));
            match self.rest.next().as_deref() {
                Some(",") => {}
                Some(">") => return Ok(members),
                _ => return Err("Syntax error: Expected \",\" or \">\" in STRUCT".to_owned()),
            }
        }
    }

    fn scalar(&mut self, word: &str) -> Result<SqlType, String> {
        let (name, keys): (&'static str, &[&'static str]) = match word {
            "INT64" | "INTEGER" | "INT" | "BIGINT" | "SMALLINT" | "TINYINT" => ("INTEGER", &[]),
            "FLOAT64" => ("FLOAT", &[]),
            "BOOL" | "BOOLEAN" => ("BOOLEAN", &[]),
            "NUMERIC" | "DECIMAL" => ("NUMERIC", &["precision", "scale"]),
            "BIGNUMERIC" | "BIGDECIMAL" => ("BIGNUMERIC", &["precision", "scale"]),
            "STRING" => ("STRING", &["maxLength"]),
            "BYTES" => ("BYTES", &["maxLength"]),
            "DATE" => ("DATE", &[]),
            "TIME" => ("TIME", &[]),
            "DATETIME" => ("DATETIME", &[]),
            "TIMESTAMP" => ("TIMESTAMP", &[]),
            "JSON" => ("JSON", &[]),
            "GEOGRAPHY" => ("GEOGRAPHY", &[]),
            other => return Err(format!("Type not found: {other}")),
        };
        Ok(SqlType::Scalar { name, parameters: self.parameters(keys)? })
    }

    fn parameters(&mut self, keys: &[&'static str]) -> Result<Vec<(&'static str, u64)>, String> {
        let mut parameters = Vec::new();
        if self.rest.peek().is_none_or(|token| token != "(") {
            return Ok(parameters);
        }
        self.rest.next();
        for key in keys {
            let value = self.name()?.parse().map_err(|_| "Type parameter must be an integer")?;
            parameters.push((*key, value));
            match self.rest.next().as_deref() {
                Some(",") => {}
                Some(")") => return Ok(parameters),
                _ => break,
            }
        }
        Err("Syntax error in type parameters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_and_its_types() {
        let alter =
            parse("ALTER TABLE `p-1.d.t` ALTER COLUMN `c` SET DATA TYPE NUMERIC(10, 2);").unwrap();
        assert_eq!(
            (alter.project.as_deref(), alter.dataset.as_str(), alter.table.as_str()),
            (Some("p-1"), "d", "t")
        );
        let numeric =
            SqlType::Scalar { name: "NUMERIC", parameters: vec![("precision", 10), ("scale", 2)] };
        assert_eq!((alter.column.as_str(), &alter.ty), ("c", &numeric));
        let nested = parse(
            "alter table d.t alter column c set data type ARRAY<STRUCT<a INT64, b ARRAY<STRING>>>",
        )
        .unwrap();
        assert!(
            matches!(nested.ty, SqlType::Array(item) if matches!(&*item, SqlType::Struct(m) if m.len() == 2))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "SELECT 1",
            "ALTER TABLE t ALTER COLUMN c SET DATA TYPE INT64",
            "ALTER TABLE d.t ALTER COLUMN c SET DATA TYPE WORD",
            "ALTER TABLE d.t ALTER COLUMN c SET DATA TYPE INT64 x",
            "ALTER TABLE d.t DROP COLUMN c",
            "ALTER TABLE `d.t ALTER COLUMN c SET DATA TYPE INT64",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
