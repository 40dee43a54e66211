//! Tells the linker to put `kafka::ffi::inflate` between librdkafka and its decompressors.

/// Functions of librdkafka (2.12.1) that one of its own files calls in another. `kafka::ffi::inflate` has a
/// `__wrap_…` for each; the tests of `it::kafka_input` fail where one is called no more.
const WRAPPED: [&str; 8] = [
    "rd_kafka_msgset_parse",
    "rd_kafka_buf_new_shadow",
    "rd_gz_decompress",
    "rd_kafka_lz4_decompress",
    "rd_kafka_zstd_decompress",
    "rd_kafka_snappy_java_uncompress",
    "rd_kafka_snappy_uncompressed_length",
    "rd_kafka_snappy_uncompress",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The linkers of other systems know no `--wrap`; there decompressed batches are not bounded.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        for function in WRAPPED {
            println!("cargo:rustc-link-arg=-Wl,--wrap={function}");
        }
    }
}
