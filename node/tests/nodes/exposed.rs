//! What callers hear of errors that are the application's own fault.

use std::fmt;

use crate::common::TestCluster;
use clinch::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Faulty;

#[derive(Debug)]
struct Outer(std::io::Error);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stock cannot be read")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[clinch::actor(name = "faulty")]
impl Faulty {
    #[action]
    fn fail(&mut self) -> Result<()> {
        Err(Error::internal(Outer(std::io::Error::other("no such shelf"))))
    }

    #[action]
    fn panic(&mut self) {
        panic!("a bug in the application");
    }

    #[action]
    fn own(&mut self) -> Result<()> {
        Err(Error::user("own", "said in full"))
    }
}

async fn told(expose: bool) -> [Error; 3] {
    let mut cluster = TestCluster::prepare(1, Registry::new().actor::<Faulty>());
    cluster.configs[0].expose_errors = expose;
    cluster.start_node(0).await;
    cluster.ready().await;
    let faulty = cluster.node(0).cluster().get::<Faulty>("a");
    let errors = [
        faulty.fail().await.unwrap_err(),
        faulty.panic().await.unwrap_err(),
        faulty.own().await.unwrap_err(),
    ];
    for error in &errors[..2] {
        assert!(error.is("rivetkit", "internal_error"), "{error}");
        assert!(error.message().contains("(reference "), "{error}");
    }
    assert_eq!(errors[2].message(), "said in full");
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn causes_of_internal_errors_are_told_by_a_node_that_exposes_them_and_by_no_other() {
    let [failed, panicked, _] = told(true).await;
    let causes = "Internal error: the stock cannot be read: no such shelf (reference ";
    assert!(failed.message().starts_with(causes), "{failed}");
    assert!(
        panicked.message().contains("a bug in the application"),
        "{panicked}"
    );
    let [failed, panicked, _] = told(false).await;
    for hidden in ["stock", "shelf"] {
        assert!(!failed.message().contains(hidden), "{failed}");
    }
    assert!(!panicked.message().contains("bug"), "{panicked}");
}
