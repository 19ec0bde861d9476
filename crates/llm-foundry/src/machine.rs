//! What this machine computes with: threads, instruction set, number format, and how much memory is left.

use crate::cli::MachineArgs;
use crate::config::ComputeDtype;
use crate::failure::{Failure, Outcome};
use foundry_kernels::{CpuBackend, Dtype, Isa};

/// The processor as a run uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Worker threads.
    pub(crate) threads: usize,
    /// Instruction set.
    pub(crate) isa: Isa,
}

impl Machine {
    /// `--threads` (or its variable) comes before `training.threads`.
    pub(crate) fn choose(args: &MachineArgs, configured: Option<usize>) -> Outcome<Self> {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let isa = match args.isa.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
            None => Isa::detect(),
            Some(name) => Isa::named(name).ok_or_else(|| {
                let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
                Failure::Input(format!(
                    "the instruction set `{name}` (--isa or FOUNDRY_ISA) is not one of this machine's: {}",
                    names.join(", ")
                ))
            })?,
        };
        Ok(Self { threads: threads(args.threads, configured, all)?, isa })
    }

    /// Kernels for it.
    pub(crate) fn backend(self) -> CpuBackend {
        CpuBackend::new(self.threads, self.isa)
    }

    /// The number format of products: bfloat16 by default where the processor has instructions for it.
    pub(crate) fn compute(self, wanted: ComputeDtype) -> Dtype {
        match wanted {
            ComputeDtype::Float32 => Dtype::F32,
            ComputeDtype::Bfloat16 => Dtype::Bf16,
            ComputeDtype::Auto if self.isa.avx512().is_some() => Dtype::Bf16,
            ComputeDtype::Auto => Dtype::F32,
        }
    }
}

/// Threads to start. Absurd numbers are refused: a machine that can start them at all would do nothing else.
fn threads(argument: Option<usize>, configured: Option<usize>, available: usize) -> Outcome<usize> {
    let (wanted, source) = match (argument, configured) {
        (Some(threads), _) => (threads, "--threads or FOUNDRY_THREADS"),
        (None, Some(threads)) => (threads, "training.threads"),
        (None, None) => return Ok(available),
    };
    let most = available.saturating_mul(4).max(1024);
    if wanted > most {
        return Err(Failure::Input(format!(
            "{wanted} threads ({source}) are more than this machine can use: it has {available}, and at most {most} \
             are accepted\n  name a smaller number, or none to use all {available}"
        )));
    }
    Ok(wanted)
}

/// As configurations write it.
pub(crate) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::Bf16 => "bfloat16",
        Dtype::U32 => "uint32",
        Dtype::U8 => "uint8",
    }
}

/// Bytes that can still be had: of the machine, and of the control group (container) this process is in.
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let machine = system.available_memory();
    // The page cache counts as used in a group, but is given back when memory is asked for.
    let group = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    [Some(machine), group].into_iter().flatten().filter(|&bytes| bytes > 0).min()
}
