//! vagrant
use super::Vm;
use super::kernels::Kernel;
use crate::Failure;
pub(super) fn run(_vm: &Vm<'_>, _k: &'static Kernel) -> Result<(), Failure> {
    Err(Failure::failed("x"))
}
