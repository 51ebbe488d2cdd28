//! `SandboxBinding` as written.
//!
//! It refuses to know whether its gateway exists.

use super::read_name;
use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::Spanned;
use crate::policy::{CgroupGlob, Selector, UnitGlob};

/// The largest process ID that Linux gives (`PID_MAX_LIMIT` of linux/threads.h on 64 bits); 1 is the machine's init.
const MAX_PID: u32 = 4_194_304;

pub(in crate::policy) struct RawBinding {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) gateway: Option<Spanned<String>>,
    pub(in crate::policy) selector: Option<Spanned<Selector>>,
}

impl RawBinding {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        spec: Option<Fields<'_>>,
        name: Spanned<String>,
    ) -> Self {
        let mut raw = Self {
            name,
            gateway: None,
            selector: None,
        };
        let Some(mut spec) = spec else {
            return raw;
        };
        if let Some(gateway) = spec.required(decoder, "gatewayRef")
            && let Some(mut fields) = decoder.fields(&gateway)
        {
            let name = fields.required(decoder, "name");
            raw.gateway = name.and_then(|name| read_name(decoder, &name));
            fields.finish(decoder);
        }
        let selector = spec.required(decoder, "selector");
        raw.selector = selector.and_then(|selector| read_selector(decoder, &selector));
        spec.finish(decoder);
        raw
    }
}

fn read_selector(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<Spanned<Selector>> {
    let mut fields = decoder.fields(at)?;
    let cgroup = fields.optional("cgroup");
    let unit = fields.optional("systemdUnit");
    let pid = fields.optional("pid");
    fields.finish(decoder);
    let (value, place) = match (cgroup, unit, pid) {
        (Some(cgroup), None, None) => {
            const EXPECTED: &str =
                "a path such as /sandboxes/* (one name) or /sandboxes/** (any depth)";
            let found = decoder.parse(&cgroup, EXPECTED, CgroupGlob::parse)?;
            (Selector::Cgroup(found.value), found.place)
        }
        (None, Some(unit), None) => {
            const EXPECTED: &str = "a unit such as agent@*.service";
            let found = decoder.parse(&unit, EXPECTED, UnitGlob::parse)?;
            (Selector::SystemdUnit(found.value), found.place)
        }
        (None, None, Some(pid)) => {
            let found = decoder.integer(&pid, 2, MAX_PID)?;
            (Selector::Pid(found.value), found.place)
        }
        _ => {
            let place = decoder.place(at);
            decoder
                .problems
                .error(place, format!("`{}` does not say which sandboxes", at.path))
                .expected("exactly one of `cgroup`, `systemdUnit` and `pid`");
            return None;
        }
    };
    Some(Spanned { value, place })
}
