//! Events (`tensorflow/core/util/event.proto`, `framework/summary.proto`) and their frames.

use crate::crc32c::masked;
use crate::protobuf::Message;
use std::time::SystemTime;

/// Fields of `Event`.
const WALL_TIME: u32 = 1;
const STEP: u32 = 2;
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
const SESSION_LOG: u32 = 7;

/// `DT_STRING` of `types.proto`.
const STRING: u64 = 7;

/// An event in the making.
pub(super) struct Event(Message);

impl Event {
    /// Something that happens now.
    pub(super) fn now() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(Message::default().double(WALL_TIME, now.as_secs_f64()))
    }

    /// The first event of every file.
    pub(super) fn version(self) -> Self {
        Self(self.0.text(FILE_VERSION, "brain.Event:2"))
    }

    /// Values of several curves.
    pub(super) fn scalars(self, position: u64, values: &[(String, f64)]) -> Self {
        let summary = values.iter().fold(Message::default(), |summary, (name, value)| {
            summary.message(1, &Message::default().text(1, name).float(2, *value as f32))
        });
        Self(self.0.integer(STEP, position).message(SUMMARY, &summary))
    }

    /// A text, for the page of texts. (`/text_summary` is how PyTorch's writer names them.)
    pub(super) fn text(self, name: &str, text: &str) -> Self {
        let plugin = Message::default().message(1, &Message::default().text(1, "text"));
        let shape = Message::default().message(2, &Message::default().integer(1, 1));
        let tensor = Message::default().integer(1, STRING).message(2, &shape).text(8, text);
        let value = Message::default()
            .text(1, &format!("{name}/text_summary"))
            .message(8, &tensor)
            .message(9, &plugin);
        Self(self.0.message(SUMMARY, &Message::default().message(1, &value)))
    }

    /// From here on events of this position and later ones that were written before do not count.
    pub(super) fn start_at(self, position: u64) -> Self {
        Self(self.0.integer(STEP, position).message(SESSION_LOG, &Message::default().integer(1, 1)))
    }

    /// The event as a TFRecord.
    pub(super) fn framed(&self) -> Vec<u8> {
        let data = self.0.encoded();
        let length = (data.len() as u64).to_le_bytes();
        let parts = [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()];
        parts.concat()
    }
}
