//! Speed of the kernels, operation by operation and shape by shape, against the measured speed of the machine. Every
//! result is checked before it is timed.
//!
//! ```text
//! cargo xtask bench [--threads N] [--isa NAME] [--seconds S] [SPEC…]
//! ```
//! A spec is `layout:operands:result:MxNxK`, such as `nt:bf16:f32:2048x1536x576` (`C[M,N]`, sums of length `K`;
//! operands `bf16-nf4`, `bf16-int8`, `f32-nf4`, … have a quantised second factor), or `attention:operands:NxKxHxT`
//! (heads, key/value heads, head width, tokens; `T/L` for sequences of `L` tokens in a row of `T`), or
//! `rmsnorm:dtype:ROWSxWIDTH`, `rope:dtype:TOKENSxHEADSxWIDTH`, `swiglu:dtype:ROWSxWIDTH`,
//! `cross_entropy:dtype:ROWSxVOCABULARYxWIDTH`, `adamw:dtype:ROWSxCOLUMNS` (also `lion`, `adamw_8bit`; the dtype is the
//! parameters'). Without one, the shapes of SmolLM2-135M and Llama-3.2-1B are timed.
//! The spec `-` reads specs from standard input, one a line, and answers each at once, so that a script can time
//! another library in between.

mod attention;
mod matmul;
mod others;
mod roofline;
mod rows;

use foundry_kernels::{Backend, CpuBackend, Isa};
use std::io::Write;

fn report(backend: &CpuBackend, roofline: &rows::Roofline, text: &str, seconds: f64) {
    if let Some(row) = matmul::row(backend, text, seconds) {
        row.print(roofline);
    } else if let Some(rows) = attention::rows(backend, text, seconds) {
        rows.iter().for_each(|row| row.print(roofline));
    } else if let Some(rows) = others::rows(backend, text, seconds) {
        rows.iter().for_each(|row| row.print(roofline));
    } else {
        println!(
            "{text}: not a spec; write for example nt:bf16:f32:2048x1536x576 or attention:bf16:9x3x64x1024"
        );
    }
    std::io::stdout().flush().expect("standard output is open");
}

fn main() {
    let (mut threads, mut isa, mut seconds) = (None, Isa::detect(), 0.3);
    let mut specs = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => threads = Some(value().parse().expect("--threads takes a number")),
            "--isa" => {
                isa = Isa::named(&value())
                    .expect("an instruction set of this machine: amx, avx512, avx2, portable")
            }
            "--seconds" => seconds = value().parse().expect("--seconds takes a number"),
            _ => specs.push(argument),
        }
    }
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let backend = CpuBackend::new(threads, isa);
    let roofline = roofline::measure(&backend, isa, threads);
    print!("{}: f32 {:.1} GFLOP/s in registers, ", backend.name(), roofline.f32_flops / 1e9);
    if let Some(flops) = roofline.bf16_flops {
        print!("bf16 {:.1}, ", flops / 1e9);
    }
    println!("{:.1} GB/s from memory", roofline.bandwidth / 1e9);
    if specs.is_empty() {
        let shapes = matmul::SHAPES.iter().chain(attention::SHAPES).chain(others::SHAPES);
        specs.extend(shapes.map(|&shape| shape.to_owned()));
    }
    for spec in &specs {
        if spec == "-" {
            let lines = std::io::stdin().lines().map_while(Result::ok);
            lines.for_each(|line| report(&backend, &roofline, &line, seconds));
        } else {
            report(&backend, &roofline, spec, seconds);
        }
    }
}
