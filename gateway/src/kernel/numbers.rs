//! Numbers of sandboxes, rule sets, port sets and editions of listeners. One is never given out twice as long as the maps live,
//! over restarts too: a socket's record or a settings entry may still bear it. Knows not what they number.

use super::error::{KernelError, map_error};
use aya::maps::{Array, Map, MapData};
use std::io;
use std::path::Path;

/// The name of the map, and of its pin.
const NAME: &str = "NUMBERS";

/// What is numbered; the position in the map.
#[derive(Clone, Copy)]
pub(super) enum Series {
    Sandbox = 0,
    RuleSet = 1,
    PortSet = 2,
    Edition = 3,
}

impl Series {
    const COUNT: u32 = 4;

    fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::RuleSet => "rule set",
            Self::PortSet => "port set",
            Self::Edition => "edition",
        }
    }
}

/// The last number given out of each series; zero for none yet.
pub(super) struct Numbers {
    last: Array<MapData, u32>,
}

impl Numbers {
    /// Fresh numbers, or with a folder of pins those that go on there.
    pub(super) fn open(maps: Option<&Path>) -> Result<Self, KernelError> {
        let Some(path) = maps.map(|folder| folder.join(NAME)) else {
            return Ok(Self { last: create()? });
        };
        if path.exists() {
            let data = MapData::from_pin(&path).map_err(|source| map_error(NAME, source))?;
            let last =
                Array::try_from(Map::Array(data)).map_err(|source| map_error(NAME, source))?;
            return Ok(Self { last });
        }
        create()?.pin(&path).map_err(|source| KernelError::Pins {
            path: path.display().to_string(),
            source: io::Error::other(source),
        })?;
        Self::open(maps)
    }

    /// A number that nothing bears; never zero.
    pub(super) fn take(&mut self, series: Series) -> Result<u32, KernelError> {
        let index = series as u32;
        let last = self
            .last
            .get(&index, 0)
            .map_err(|source| map_error(NAME, source))?;
        let next = last
            .checked_add(1)
            .ok_or(KernelError::Exhausted(series.name()))?;
        // Written before it is used: a process that dies in between wastes a number, no more.
        self.last
            .set(index, next, 0)
            .map_err(|source| map_error(NAME, source))?;
        Ok(next)
    }
}

fn create() -> Result<Array<MapData, u32>, KernelError> {
    Array::create(Series::COUNT, 0).map_err(|source| map_error(NAME, source))
}
