//! Losses that learn what a teacher says.

mod attention_transfer;
mod classifier_reuse;
mod crd;
mod embedding_regression;
mod evolving_teacher;
mod feature_regression;
mod hybrid_order;
mod logit_distillation;
mod map_similarity;
mod mk_mmd;
mod pkt;
mod relation_similarity;
mod relational_contrastive;
mod relations;
mod rkd;
mod selective_regression;
mod similarity_preserving;
mod wavelet_similarity;

pub use attention_transfer::{AttentionDistance, AttentionTransfer};
pub use classifier_reuse::ClassifierReuse;
pub use crd::Crd;
pub use embedding_regression::{EmbeddingDistance, EmbeddingRegression};
pub use evolving_teacher::EvolvingTeacher;
pub use feature_regression::{Connector, FeatureRegression};
pub use hybrid_order::HybridOrder;
pub use logit_distillation::{LogitDistillation, TeacherLogits};
pub use map_similarity::MapSimilarity;
pub use mk_mmd::MkMmd;
pub use pkt::Pkt;
pub use relation_similarity::RelationSimilarity;
pub use relational_contrastive::{Negatives, RelationalContrastive};
pub use rkd::Rkd;
pub use selective_regression::SelectiveRegression;
pub use similarity_preserving::{Compared, SimilarityPreserving};
pub use wavelet_similarity::WaveletSimilarity;
