//! `tabledata.insertAll`: framing, classification, the tower stack.
