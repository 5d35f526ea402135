//! Requests for pages of documents.

/// A request for a page of documents.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The feature, by name.
    pub plugin: String,
    /// The scope.
    pub scope: String,
    /// The collection.
    pub collection: String,
    /// Restricts the page to documents stored before the one of this id.
    pub before: Option<String>,
    /// The most documents in the page.
    pub limit: u32,
}
