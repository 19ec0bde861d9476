//! Rules of the section `data`.

use super::Rules;
use crate::config::{AutoOr, Config, DataFormat, PackingKind, Stopping};
use foundry_data::TrainOn;

impl Rules<'_> {
    pub(super) fn data(&mut self, config: &Config) {
        let data = &config.data;
        if data.train.0.is_empty() && data.sources.is_empty() {
            self.wrong("data.train", "no training data: `data.train` is missing", "name one or more files");
        }
        self.sources(config);
        self.streaming(config);
        self.range(
            "data.eval_fraction",
            data.eval_fraction,
            (0.0..1.0).contains(&data.eval_fraction),
            "from 0 to below 1",
        );
        if data.eval_fraction > 0.0 && !data.eval.0.is_empty() {
            self.wrong(
                "data.eval_fraction",
                "`data.eval_fraction` and `data.eval` are both given",
                "keep one of them",
            );
        }
        match data.max_length {
            None if data.packing || data.eval_packing == Some(true) => self.wrong(
                "data.max_length",
                "packing needs a row length, but `data.max_length` is null",
                "give `max_length`, or set `packing: false`",
            ),
            Some(length) => {
                self.range("data.max_length", length, length >= 2, "at least 2 (a token and its successor)")
            }
            None => {}
        }
        if let Some(TrainOn::Roles(roles)) = data.train_on.as_ref().map(|turns| &turns.0) {
            if roles.is_empty() {
                self.wrong(
                    "data.train_on",
                    "`data.train_on` names no role, so that nothing would be learned",
                    "name roles, for example [assistant], or remove `train_on`",
                );
            } else if data.assistant_only_loss && roles.iter().any(|role| role != "assistant") {
                self.wrong(
                    "data.train_on",
                    "`data.train_on` names other roles, but `data.assistant_only_loss` is true",
                    "keep one of them",
                );
            }
        }
        let strategy_is_default = data.packing_strategy == PackingKind::Bfd;
        let packs = data.packing || data.eval_packing == Some(true);
        if self.asked_for("data.packing_strategy", strategy_is_default) && !packs {
            self.wrong(
                "data.packing_strategy",
                "`data.packing_strategy` is given, but nothing is packed",
                "set `packing: true`, or remove `packing_strategy`",
            );
        }
        if data.assistant_only_loss && matches!(data.format, DataFormat::Text) {
            self.wrong(
                "data.assistant_only_loss",
                "plain text has no assistant turns to train on",
                "remove `assistant_only_loss`, or use chat data",
            );
        }
    }

    pub(super) fn sources(&mut self, config: &Config) {
        let data = &config.data;
        if !data.train.0.is_empty() && !data.sources.is_empty() {
            self.wrong("data.sources", "`data.train` and `data.sources` are both given", "keep one of them");
        }
        let weighted = data.sources.iter().filter(|source| source.weight.is_some()).count();
        if weighted > 0 && weighted < data.sources.len() {
            let all = data.sources.len();
            let message = format!("{weighted} of the {all} sources have a `weight`");
            self.wrong("data.sources", message, "give every source a weight, or none");
        }
        if weighted == 0
            && self.asked_for("data.stopping_strategy", data.stopping_strategy == Stopping::FirstExhausted)
        {
            let message = "`data.stopping_strategy` is given, but no source has a `weight`";
            self.wrong("data.stopping_strategy", message, "give every source a `weight`, or remove it");
        }
        for (index, source) in data.sources.iter().enumerate() {
            let path = |key: &str| format!("data.sources.{index}.{key}");
            if source.path.0.is_empty() {
                let message = format!("source {} of `data.sources` has no `path`", index + 1);
                self.wrong("data.sources", message, "name its files");
            }
            let weight = source.weight.unwrap_or(1.0);
            self.range(&path("weight"), weight, weight > 0.0 && weight <= 1e9, "above 0 and at most 1e9");
            let fraction = source.fraction.unwrap_or(1.0);
            self.range(
                &path("fraction"),
                fraction,
                fraction > 0.0 && fraction <= 1.0,
                "above 0 and at most 1",
            );
            self.range(&path("take"), source.take.unwrap_or(1), source.take != Some(0), "1 or more");
        }
        let filter = &data.filter;
        if let (Some(min), Some(max)) = (filter.min_chars, filter.max_chars) {
            self.range("data.filter.max_chars", max, max >= min, "at least `min_chars`");
        }
        let least = filter.min_charset_fraction.unwrap_or(1.0);
        self.range("data.filter.min_charset_fraction", least, (0.0..=1.0).contains(&least), "from 0 to 1");
        if filter.min_charset_fraction.is_some() && filter.charset.is_none() {
            let message = "`data.filter.min_charset_fraction` is given, but no `charset`";
            self.wrong("data.filter.min_charset_fraction", message, "give `charset: latin` or `ascii`");
        }
        if let Some(wanted) = &data.decontaminate {
            if wanted.path.0.is_empty() {
                let message = "`data.decontaminate` names no files";
                self.wrong("data.decontaminate", message, "give `path`: the evaluation sets");
            }
            self.range("data.decontaminate.ngram", wanted.ngram, wanted.ngram >= 1, "1 or more");
        }
    }

    pub(super) fn streaming(&mut self, config: &Config) {
        let data = &config.data;
        self.range(
            "data.shuffle_buffer",
            data.shuffle_buffer,
            data.shuffle_buffer <= 100_000,
            "at most 100000 (its rows are held in memory, their places in every checkpoint)",
        );
        if data.streaming == AutoOr::Given(false)
            && self.asked_for("data.shuffle_buffer", data.shuffle_buffer == 1000)
        {
            let message = "`data.shuffle_buffer` is given, but `data.streaming: false` shuffles all rows";
            self.wrong("data.shuffle_buffer", message, "remove it, or set `streaming: true`");
        }
        if data.streaming != AutoOr::Given(true) {
            return;
        }
        // That `deduplicate` needs all rows is told by the data: token files may have done it already.
        if data.shuffle_dataset {
            let message = "`data.shuffle_dataset` needs every row at once, which a stream does not have";
            self.wrong("data.shuffle_dataset", message, "use `shuffle_buffer`, or set `streaming: false`");
        }
        if data.max_length.is_none() {
            let message = "streamed rows need a greatest length, but `data.max_length` is null";
            self.wrong("data.max_length", message, "give `max_length`, or set `streaming: false`");
        }
    }
}
