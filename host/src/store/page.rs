//! A page of documents to read.

/// Which documents to read.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The feature that they belong to.
    pub plugin: String,
    /// The scope.
    pub scope: String,
    /// The collection.
    pub collection: String,
    /// Only documents that were stored before the one of this id.
    pub before: Option<String>,
    /// How many, at most.
    pub limit: u32,
}
