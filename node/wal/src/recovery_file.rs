//! Reading the file of a forced recovery that was decided.

use crate::disk::{self, Disk};
use crate::error::{OpenError, io_error, malformed};
use crate::format::recovery::decode_recovery;
use crate::names::RECOVERY;
use crate::recovery::Recovery;

/// Far more than any: a bound for reading it.
const SIZE_MAX_BYTES: u64 = 1 << 20;

/// What was decided, if something is.
pub(crate) fn read_recovery(disk: &dyn Disk) -> Result<Option<Recovery>, OpenError> {
    match disk::read_small(disk, RECOVERY, SIZE_MAX_BYTES).map_err(io_error("read RECOVERY"))? {
        None => Ok(None),
        Some(bytes) => decode_recovery(&bytes).map(Some).map_err(|reason| malformed(RECOVERY, 0, reason)),
    }
}
