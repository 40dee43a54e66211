//! A quick yes: whether a datum holds nothing that the interpreter would refuse.
//!
//! A datum that is passed on as it is need not be taken apart value by value: lengths, ranges and text
//! are looked at, and nothing is converted. Only the yes counts. On a no the interpreter is asked, which
//! may still say yes, and otherwise says what is wrong and where.

use crate::transcode::{
    avro::reader::Reader,
    convert::{DecimalTarget, Form, FromBytes, FromFloat, FromInteger, FromText, Unit, civil},
    plan::{Action, Op, Presence, Scalar},
};

/// Bytes of a number that fits either decimal type, wherever in its scale the point is.
const SHORT_DECIMAL_BYTES: usize = 8;

/// What the bytes of a record are expected to be, in their order. A record within has none of its own.
#[derive(Debug)]
pub struct Acceptor {
    steps: Box<[Expect]>,
}

/// The next bytes.
#[derive(Debug)]
enum Expect {
    /// So many of any content.
    Run(usize),
    /// 0 or 1.
    Bool,
    /// A number of 64 bits.
    Long,
    /// A number from here to there.
    Within(i64, i64),
    /// UTF-8 behind its length.
    Text,
    /// Bytes behind their length.
    Sized,
    /// Bytes behind their length: a decimal that fits whatever it is.
    ShortDecimal,
    /// A number below this.
    Index(u32),
    /// A union of null, at this index, and of what so many next steps expect.
    Optional { null: u32, steps: usize },
    /// An array's or a map's blocks.
    Blocks(Box<Items>),
}

/// The items of blocks.
#[derive(Debug)]
struct Items {
    steps: Box<[Expect]>,
    /// The fewest bytes that one takes; at least one, so that the datum bounds their number.
    bytes_min: usize,
}

impl Acceptor {
    /// What the datum of a record with these operations holds; `None` where values are of a kind that
    /// must be converted to know whether they fit.
    pub fn compile(ops: &[Op]) -> Option<Self> {
        Some(Self { steps: sequence(ops)? })
    }

    /// Whether the interpreter would take the datum for sure.
    #[inline]
    pub fn accepts(&self, datum: &[u8]) -> bool {
        let mut reader = Reader::new(datum, usize::MAX);
        accept(&self.steps, &mut reader).is_some() && reader.end().is_ok()
    }
}

fn sequence(ops: &[Op]) -> Option<Box<[Expect]>> {
    let mut steps = Vec::with_capacity(ops.len());
    ops.iter().try_for_each(|op| field(op, &mut steps))?;
    Some(steps.into())
}

fn field(op: &Op, steps: &mut Vec<Expect>) -> Option<()> {
    let null = match op.presence {
        Presence::Always => return value(&op.action, steps),
        Presence::Optional(null) if !op.required => u32::from(null),
        Presence::Optional(_) | Presence::Union { .. } => return None,
    };
    let at = steps.len();
    steps.push(Expect::Optional { null, steps: 0 });
    value(&op.action, steps)?;
    let taken = steps.len() - at - 1;
    if let Some(Expect::Optional { steps, .. }) = steps.get_mut(at) {
        *steps = taken;
    }
    Some(())
}

fn value(action: &Action, steps: &mut Vec<Expect>) -> Option<()> {
    match action {
        Action::Scalar(conversion) => steps.push(scalar(conversion)?),
        Action::Record(record) => record.ops.iter().try_for_each(|op| field(op, steps))?,
        Action::Array(elements) => {
            let items = sequence(std::slice::from_ref(&elements.element))?;
            steps.push(blocks(items, elements.bytes_min)?);
        }
        Action::Map(entries) => {
            let mut items = vec![Expect::Text];
            field(&entries.value, &mut items)?;
            steps.push(blocks(items.into(), entries.bytes_min)?);
        }
        _ => return None,
    }
    Some(())
}

fn blocks(steps: Box<[Expect]>, bytes_min: usize) -> Option<Expect> {
    (bytes_min > 0).then(|| Expect::Blocks(Box::new(Items { steps, bytes_min })))
}

fn scalar(scalar: &Scalar) -> Option<Expect> {
    Some(match scalar {
        Scalar::Bool => Expect::Bool,
        Scalar::Int(conversion) => match integer(*conversion)? {
            Expect::Within(least, most) => {
                Expect::Within(least.max(i32::MIN.into()), most.min(i32::MAX.into()))
            }
            _ => Expect::Within(i32::MIN.into(), i32::MAX.into()),
        },
        Scalar::Long(conversion) => integer(*conversion)?,
        Scalar::Float(FromFloat::Float64) => Expect::Run(4),
        Scalar::Double(FromFloat::Float64) => Expect::Run(8),
        Scalar::Text(FromText::Text) => Expect::Text,
        Scalar::Bytes(FromBytes::Bytes) => Expect::Sized,
        Scalar::Bytes(conversion) if is_exact(*conversion) => Expect::ShortDecimal,
        Scalar::Fixed(len, FromBytes::Bytes) => Expect::Run(*len),
        Scalar::Fixed(len, conversion) if *len <= SHORT_DECIMAL_BYTES && is_exact(*conversion) => {
            Expect::Run(*len)
        }
        Scalar::Enum(symbols) => Expect::Index(u32::try_from(symbols.len()).ok()?),
        _ => return None,
    })
}

fn integer(conversion: FromInteger) -> Option<Expect> {
    Some(match conversion {
        FromInteger::Int64 => Expect::Long,
        FromInteger::Date(Form::Native) => Expect::Within(civil::DAYS_MIN, civil::DAYS_MAX),
        FromInteger::Time(unit, Form::Native) => within((0, civil::DAY_MICROS - 1), unit)?,
        FromInteger::DateTime(unit, Form::Native) | FromInteger::Timestamp(unit, Form::Native) => {
            within((civil::MOMENT_MIN, civil::MOMENT_MAX), unit)?
        }
        _ => return None,
    })
}

/// The numbers of `unit` from one moment to another, in microseconds.
fn within((least, most): (i64, i64), unit: Unit) -> Option<Expect> {
    match unit {
        Unit::Micros => Some(Expect::Within(least, most)),
        // Toward the moments between, so that each of these numbers is one of them.
        Unit::Millis => Some(Expect::Within(-(-least).div_euclid(1_000), most.div_euclid(1_000))),
        Unit::Nanos => None,
    }
}

/// Whether a number of 64 bits fits, with twenty digits at most.
fn is_exact(conversion: FromBytes) -> bool {
    let FromBytes::Decimal { scale, target: DecimalTarget::Exact(range) } = conversion else {
        return false;
    };
    (0..=range.scale()).contains(&scale)
}

#[inline]
fn accept(mut steps: &[Expect], reader: &mut Reader<'_>) -> Option<()> {
    while let Some((step, mut rest)) = steps.split_first() {
        match step {
            Expect::Run(len) => {
                reader.take(*len).ok()?;
            }
            Expect::Bool => {
                reader.boolean().ok()?;
            }
            Expect::Long => {
                reader.long().ok()?;
            }
            Expect::Within(least, most) => {
                (*least..=*most).contains(&reader.long().ok()?).then_some(())?;
            }
            Expect::Text => {
                reader.text().ok()?.check().ok()?;
            }
            Expect::Sized => {
                reader.bytes().ok()?;
            }
            Expect::ShortDecimal => {
                (reader.bytes().ok()?.len() <= SHORT_DECIMAL_BYTES).then_some(())?;
            }
            Expect::Index(count) => (reader.index().ok()? < *count).then_some(())?,
            Expect::Optional { null, steps } => match reader.index().ok()? {
                branch if branch == *null => rest = rest.get(*steps..)?,
                0 | 1 => {}
                _ => return None,
            },
            Expect::Blocks(items) => accept_blocks(items, reader)?,
        }
        steps = rest;
    }
    Some(())
}

fn accept_blocks(items: &Items, reader: &mut Reader<'_>) -> Option<()> {
    loop {
        match reader.block(items.bytes_min).ok()? {
            0 => return Some(()),
            count => (0..count).try_for_each(|_| accept(&items.steps, reader))?,
        }
    }
}
