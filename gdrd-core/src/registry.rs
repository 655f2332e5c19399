//! The registry: every plug-in that recipes can name.

use crate::context::BuildContext;
use crate::data::{
    AsIs, DatasetConfig, DegradationConfig, IdentityFolders, ImageFolder, InsightfaceBin, Joined, ListedFaces, MatList,
    MatPairs, MxnetRecord, NamedFiles, Occluded, Packed, ParquetImages, RandomDownscale, Subset, SyntheticFaces,
    WebDataset,
};
use crate::degrade::Downscale;
use crate::error::{Context, Error, Result};
use crate::evaluation::{Identification, OpenSetIdentification, ProtocolConfig, Restoration, Retrieval, Verification};
use crate::loss::{
    AdaFace, ArcFace, AttentionTransfer, ClassifierReuse, CosFace, Crd, CrossEntropy, CurricularFace, Denoising,
    EmbeddingRegression, EvolvingTeacher, FeatureRegression, HybridOrder, LogitDistillation, LossConfig, MagFace,
    MapSimilarity, MkMmd, Octuplet, PixelRegression, Pkt, RelationSimilarity, RelationalContrastive, RivalPenalised,
    Rkd, SelectiveRegression, Siamese, SimilarityPreserving, SphereFace, Triplet, WaveletSimilarity,
};
use crate::nn::Weights;
use crate::plugin::{Boxed, Family};
use crate::recipe::RecipePath;
use crate::student::{Input, Student, StudentConfig, StudentFile, StudentKinds, build_recorded};
use crate::teacher::{TeacherConfig, Transformed};
use crate::trainer::{AdamW, Constant, Cosine, OneCycle, OptimizerConfig, ScheduleConfig, Sgd, StepSchedule};

/// Every plug-in by its contract. A program fills one in its `main` and hands it on; there is no global state.
pub struct Registry {
    /// Where faces come from.
    pub datasets: Family<dyn DatasetConfig>,
    /// How faces lose their resolution.
    pub degradations: Family<dyn DegradationConfig>,
    /// What students learn from.
    pub teachers: Family<dyn TeacherConfig>,
    /// What is trained.
    pub students: Family<dyn StudentConfig>,
    /// What is minimised.
    pub losses: Family<dyn LossConfig>,
    /// How variables change.
    pub optimizers: Family<dyn OptimizerConfig>,
    /// How the learning rate changes.
    pub schedules: Family<dyn ScheduleConfig>,
    /// What is measured.
    pub protocols: Family<dyn ProtocolConfig>,
}

impl Registry {
    /// A registry without any kind.
    pub fn empty() -> Self {
        Self {
            datasets: Family::new("dataset"),
            degradations: Family::new("degradation"),
            teachers: Family::new("teacher"),
            students: Family::new("student"),
            losses: Family::new("loss"),
            optimizers: Family::new("optimizer"),
            schedules: Family::new("schedule"),
            protocols: Family::new("protocol"),
        }
    }

    /// A registry with the kinds of this crate; students, and teachers with networks, come from their own crates.
    ///
    /// # Errors
    /// Never, as long as the names in this crate differ.
    pub fn with_core() -> Result<Self> {
        let mut registry = Self::empty();
        registry.datasets.register::<IdentityFolders>()?;
        registry.datasets.register::<ImageFolder>()?;
        registry.datasets.register::<SyntheticFaces>()?;
        registry.datasets.register::<Joined>()?;
        registry.datasets.register::<Occluded>()?;
        registry.datasets.register::<Subset>()?;
        registry.datasets.register::<MxnetRecord>()?;
        registry.datasets.register::<InsightfaceBin>()?;
        registry.datasets.register::<ParquetImages>()?;
        registry.datasets.register::<WebDataset>()?;
        registry.datasets.register::<Packed>()?;
        registry.datasets.register::<ListedFaces>()?;
        registry.datasets.register::<NamedFiles>()?;
        registry.datasets.register::<MatList>()?;
        registry.datasets.register::<MatPairs>()?;
        registry.degradations.register::<AsIs>()?;
        registry.degradations.register::<Downscale>()?;
        registry.degradations.register::<RandomDownscale>()?;
        registry.teachers.register::<Transformed>()?;
        registry.losses.register::<FeatureRegression>()?;
        registry.losses.register::<RelationalContrastive>()?;
        registry.losses.register::<LogitDistillation>()?;
        registry.losses.register::<CrossEntropy>()?;
        registry.losses.register::<ArcFace>()?;
        registry.losses.register::<CosFace>()?;
        registry.losses.register::<EmbeddingRegression>()?;
        registry.losses.register::<RelationSimilarity>()?;
        registry.losses.register::<Denoising>()?;
        registry.losses.register::<SphereFace>()?;
        registry.losses.register::<MagFace>()?;
        registry.losses.register::<AdaFace>()?;
        registry.losses.register::<CurricularFace>()?;
        registry.losses.register::<RivalPenalised>()?;
        registry.losses.register::<Triplet>()?;
        registry.losses.register::<Siamese>()?;
        registry.losses.register::<Octuplet>()?;
        registry.losses.register::<AttentionTransfer>()?;
        registry.losses.register::<SimilarityPreserving>()?;
        registry.losses.register::<Pkt>()?;
        registry.losses.register::<Rkd>()?;
        registry.losses.register::<Crd>()?;
        registry.losses.register::<HybridOrder>()?;
        registry.losses.register::<SelectiveRegression>()?;
        registry.losses.register::<ClassifierReuse>()?;
        registry.losses.register::<MapSimilarity>()?;
        registry.losses.register::<EvolvingTeacher>()?;
        registry.losses.register::<PixelRegression>()?;
        registry.losses.register::<WaveletSimilarity>()?;
        registry.losses.register::<MkMmd>()?;
        registry.optimizers.register::<Sgd>()?;
        registry.optimizers.register::<AdamW>()?;
        registry.schedules.register::<Constant>()?;
        registry.schedules.register::<StepSchedule>()?;
        registry.schedules.register::<Cosine>()?;
        registry.schedules.register::<OneCycle>()?;
        registry.protocols.register::<Verification>()?;
        registry.protocols.register::<Restoration>()?;
        registry.protocols.register::<Identification>()?;
        registry.protocols.register::<Retrieval>()?;
        registry.protocols.register::<OpenSetIdentification>()?;
        Ok(registry)
    }
}

impl StudentKinds for Registry {
    fn config(&self, kind: &str, options: &serde_json::Value) -> Result<Box<dyn StudentConfig>> {
        self.students.from_json(kind, options)
    }
}

impl BuildContext<'_> {
    /// A new network of a student's kind for faces of `size` pixels, as a part of what is built. `table` has `kind` and its options,
    /// as `[student]` of a recipe; the parameters are in `weights`.
    ///
    /// # Errors
    /// If there is no `kind`, the options are not its, or as [`StudentConfig::build`].
    pub fn student(
        &self,
        mut table: serde_json::Map<String, serde_json::Value>,
        size: usize,
        weights: &Weights,
    ) -> Result<Box<dyn Student>> {
        let registry: &Registry = self.service()?;
        let Some(serde_json::Value::String(kind)) = table.remove("kind") else {
            return Err(Error::recipe("expected `kind`, the kind of a student, found none"));
        };
        let config = registry.config(&kind, &serde_json::Value::Object(table))?;
        if let Some(problem) = config.check().into_iter().next() {
            return Err(Error::recipe(format!("`{}`: {}", problem.key, problem.message)));
        }
        let (student, record) = build_recorded(&*config, &Input { size, preprocessing: None }, weights, self.host())?;
        self.add(record);
        Ok(student)
    }

    /// The student in a file, whatever kind the program has registered it is of.
    ///
    /// # Errors
    /// If the file cannot be had, is no complete student file, or its kind is not registered.
    pub fn student_file(&self, path: &RecipePath) -> Result<StudentFile> {
        let registry: &Registry = self.service()?;
        let file = self.file(path)?;
        let bytes = crate::files::read(&file.path).map_err(|e| Error::io(&file.path, e))?;
        StudentFile::open(&bytes, self.device(), registry).at(|| format!("`{path}`"))
    }
}

/// A kind in a listing.
pub struct Listed {
    /// The word of its family.
    pub family: &'static str,
    /// Its name in recipes.
    pub name: &'static str,
    /// What it is, in a line.
    pub purpose: &'static str,
    /// The JSON schema of its options.
    pub schema: schemars::Schema,
}

impl Registry {
    /// Every kind, in the order of the flow and then of the names.
    pub fn kinds(&self) -> Vec<Listed> {
        fn of<D: ?Sized>(family: &Family<D>) -> impl Iterator<Item = Listed> {
            family.list().filter_map(|(name, purpose)| {
                Some(Listed { family: family.what(), name, purpose, schema: family.schema(name)? })
            })
        }
        of(&self.datasets)
            .chain(of(&self.degradations))
            .chain(of(&self.teachers))
            .chain(of(&self.students))
            .chain(of(&self.losses))
            .chain(of(&self.optimizers))
            .chain(of(&self.schedules))
            .chain(of(&self.protocols))
            .collect()
    }
}

macro_rules! boxed {
    ($($contract:path),*) => {$(
        impl<T: $contract + 'static> Boxed<dyn $contract> for T {
            fn boxed(self) -> Box<dyn $contract> {
                Box::new(self)
            }
        }
    )*};
}

boxed!(
    DatasetConfig,
    DegradationConfig,
    TeacherConfig,
    StudentConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    ProtocolConfig
);
