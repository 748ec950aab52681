//! What a program without the feature `odbc` says.

use casebook_connectors::{CONNECTORS, CheckRequest, ConnectorOptions, register};
use datafusion::prelude::SessionContext;

#[tokio::test]
async fn the_message_names_the_feature_and_the_package() {
    let ctx = SessionContext::new();
    register(&ctx, &ConnectorOptions::default()).unwrap();
    let created = ctx
        .sql("CREATE EXTERNAL TABLE t STORED AS ODBC LOCATION 's.t' OPTIONS ('odbc.dsn' 'x')")
        .await;
    let odbc = CONNECTORS.iter().find(|c| c.name == "ODBC").unwrap();
    let request = CheckRequest {
        location: "s.t".into(),
        options: Default::default(),
        write: false,
    };
    let checked = odbc.check(request).await.remove(0).result.unwrap_err();
    for message in [created.unwrap_err().to_string(), checked.to_string()] {
        assert!(message.contains("--features odbc"), "{message}");
        assert!(message.contains("unixodbc-dev"), "{message}");
    }
}
