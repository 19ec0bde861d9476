//! Raw files to packed rows of tokens: sources, chat templates, masks, packing, order, resume.
