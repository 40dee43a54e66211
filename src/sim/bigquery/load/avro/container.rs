//! The container: magic, metadata, sync marker, blocks.

use crate::sim::bigquery::load::avro::datum::Cursor;

/// What stands before the first block.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// `avro.schema`.
    pub schema: &'a str,
    /// `avro.codec`; `null` where the file names none.
    pub codec: &'a str,
    sync: [u8; 16],
    blocks: &'a [u8],
}

/// The blocks of a file.
#[derive(Debug)]
pub struct Container<'a> {
    sync: [u8; 16],
    cursor: Cursor<'a>,
}

impl<'a> Container<'a> {
    /// Reads a file's header.
    pub fn open(bytes: &'a [u8]) -> Result<Header<'a>, String> {
        let mut cursor = Cursor::new(bytes);
        if cursor.take(4) != Ok(b"Obj\x01") {
            return Err("Invalid data file. Magic does not match".to_owned());
        }
        let (mut schema, mut codec) = (None, None);
        while let Some(count) = cursor.block()? {
            for _ in 0..count {
                let (key, value) = (cursor.string()?, cursor.bytes()?);
                let text = std::str::from_utf8(value);
                match key {
                    "avro.schema" => schema = Some(text.map_err(|_| "avro.schema is not UTF-8")?),
                    "avro.codec" => codec = Some(text.map_err(|_| "avro.codec is not UTF-8")?),
                    _ => {}
                }
            }
        }
        let sync = <[u8; 16]>::try_from(cursor.take(16)?).map_err(|error| error.to_string())?;
        Ok(Header {
            schema: schema.ok_or("No schema in the file")?,
            codec: codec.unwrap_or("null"),
            sync,
            blocks: cursor.remaining(),
        })
    }

    /// From the first block.
    pub fn blocks(header: &Header<'a>) -> Self {
        Self { sync: header.sync, cursor: Cursor::new(header.blocks) }
    }

    /// The next block's number of datums and its data, still compressed.
    pub fn next_block(&mut self) -> Result<Option<(u64, &'a [u8])>, String> {
        if self.cursor.rest() == 0 {
            return Ok(None);
        }
        let count = u64::try_from(self.cursor.long()?).map_err(|_| "a negative count of datums")?;
        let size =
            usize::try_from(self.cursor.long()?).map_err(|_| "a negative size of a block")?;
        let data = self.cursor.take(size)?;
        if self.cursor.take(16)? != self.sync {
            return Err("Sync markers do not match".to_owned());
        }
        Ok(Some((count, data)))
    }
}
