//! Which processors the server runs on without being told to (F-7): those that etcd supports. Pure.

/// Names the processor on which to run nevertheless, in Go's spelling.
pub const VARIABLE: &str = "ETCD_UNSUPPORTED_ARCH";

const SUPPORTED: [&str; 4] = ["amd64", "arm64", "ppc64le", "s390x"];

/// This processor as Go calls it.
pub fn name() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "x86" => "386",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Whether a server may run on `arch`, given the variable's value.
pub fn may_run(arch: &str, variable: Option<&str>) -> bool {
    SUPPORTED.contains(&arch) || variable == Some(arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_processor_must_be_named() {
        assert!(may_run("amd64", None) && may_run("arm64", Some("riscv64")));
        assert!(!may_run("riscv64", None) && !may_run("riscv64", Some("arm")));
        assert!(may_run("riscv64", Some("riscv64")));
        assert!(!name().is_empty());
    }
}
