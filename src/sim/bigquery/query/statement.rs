//! The parser of `` ALTER TABLE `p.d.t` ALTER COLUMN c SET DATA TYPE T `` and of `` SELECT COUNT(c) FROM `p.d.t` ``.

/// One parsed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A column gets another type.
    Alter(Alter),
    /// Rows, or values of a column, are counted.
    Count(Count),
}

/// A table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The project, where the name has three parts.
    pub project: Option<String>,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
}

/// `SELECT COUNT(…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The table.
    pub table: TableName,
    /// The column whose values are counted; none for rows.
    pub column: Option<String>,
}

/// `ALTER COLUMN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alter {
    /// The table.
    pub table: TableName,
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
pub fn parse(text: &str) -> Result<Statement, String> {
    let mut tokens = Tokens { rest: tokenise(text)?.into_iter().peekable(), depth: 0 };
    let is_count = tokens.rest.peek().is_some_and(|token| token.eq_ignore_ascii_case("SELECT"));
    let statement = match is_count {
        true => Statement::Count(tokens.count()?),
        false => Statement::Alter(tokens.alter()?),
    };
    if tokens.rest.peek().is_some_and(|token| token == ";") {
        tokens.rest.next();
    }
    match tokens.rest.next() {
        Some(token) => Err(format!("Syntax error: Unexpected \"{token}\"")),
        None => Ok(statement),
    }
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

    fn alter(&mut self) -> Result<Alter, String> {
        self.words(&["ALTER", "TABLE"])?;
        let table = self.table()?;
        self.words(&["ALTER", "COLUMN"])?;
        let column = self.name()?;
        self.words(&["SET", "DATA", "TYPE"])?;
        Ok(Alter { table, column, ty: self.ty()? })
    }

    fn count(&mut self) -> Result<Count, String> {
        self.words(&["SELECT", "COUNT", "("])?;
        let column = Some(self.name()?).filter(|column| column != "*");
        self.words(&[")", "FROM"])?;
        Ok(Count { table: self.table()?, column })
    }

    fn table(&mut self) -> Result<TableName, String> {
        let name = self.name()?;
        let (project, dataset, table) = match *name.split('.').collect::<Vec<_>>() {
            [dataset, table] => (None, dataset, table),
            [project, dataset, table] => (Some(project.to_owned()), dataset, table),
            _ => return Err(format!("Table name \"{name}\" must be qualified with a dataset")),
        };
        Ok(TableName { project, dataset: dataset.to_owned(), table: table.to_owned() })
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

    fn alter(text: &str) -> Alter {
        match parse(text).unwrap() {
            Statement::Alter(alter) => alter,
            other => panic!("{other:?}"),
        }
    }

    fn name(project: Option<&str>) -> TableName {
        let project = project.map(str::to_owned);
        TableName { project, dataset: "d".to_owned(), table: "t".to_owned() }
    }

    #[test]
    fn rows_and_values_are_counted() {
        let count = |column: Option<&str>, project| {
            Statement::Count(Count { table: name(project), column: column.map(str::to_owned) })
        };
        assert_eq!(parse("SELECT COUNT(*) FROM `p-1.d.t`").unwrap(), count(None, Some("p-1")));
        assert_eq!(parse("select count(c) from d.t;").unwrap(), count(Some("c"), None));
    }

    #[test]
    fn the_statement_and_its_types() {
        let alter =
            self::alter("ALTER TABLE `p-1.d.t` ALTER COLUMN `c` SET DATA TYPE NUMERIC(10, 2);");
        assert_eq!(alter.table, name(Some("p-1")));
        let numeric =
            SqlType::Scalar { name: "NUMERIC", parameters: vec![("precision", 10), ("scale", 2)] };
        assert_eq!((alter.column.as_str(), &alter.ty), ("c", &numeric));
        let nested = self::alter(
            "alter table d.t alter column c set data type ARRAY<STRUCT<a INT64, b ARRAY<STRING>>>",
        );
        assert!(
            matches!(nested.ty, SqlType::Array(item) if matches!(&*item, SqlType::Struct(m) if m.len() == 2))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "SELECT 1",
            "SELECT COUNT(*) FROM t",
            "SELECT COUNT(*) FROM d.t WHERE TRUE",
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
