//! OpenAPI documents in the configuration, and how their faults are shown.

use crate::config::{Colour, check};
use expect_test::expect;
use tempfile::TempDir;

const DOCUMENT: &str = "openapi: 3.1.0\nservers:\n  - url: https://api.example.com\npaths:\n  \
                        /orders:\n    post: { operationId: createOrder }\n";

fn shown(place: &str, document: &str) -> String {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), document).unwrap();
    let file = folder.path().join("holdpoint.toml");
    let text = format!("[server.s]\ncommand = [\"s\"]\n{place}\n");
    let (config, report) = check("holdpoint.toml", &file, &text);
    assert_eq!(config.is_none(), report.has_faults());
    report.render(Colour::Never).replace(&folder.path().display().to_string(), "/hp")
}

#[test]
fn a_document_that_can_be_read_is_no_fault() {
    let place = "place = { openapi = [{ file = \"shop.yaml\", classes = { createOrder = \
                 \"destructive\", \"POST /orders\" = \"read\" } }] }";
    assert_eq!(shown(place, DOCUMENT), "");
    let place = "[[server.s.place.openapi]]\nfile = \"shop.yaml\"\nservers = [\"http://a:1/b\"]";
    assert_eq!(shown(place, &DOCUMENT.replace("https://api.example.com", "/")), "");
}

#[test]
fn faults_of_documents_are_shown_where_they_are() {
    let one = "place = { openapi = [{ file = \"shop.yaml\" }] }";
    let wrong = DOCUMENT.replace("createOrder", "createOrder, x-holdpoint-class: reed");
    expect![[r#"
        error: `x-holdpoint-class` is `read`, `write` or `destructive`
         --> /hp/shop.yaml:6:58
          |
        6 |     post: { operationId: createOrder, x-holdpoint-class: reed }
          |                                                          ^

        1 fault, 0 warnings
    "#]]
    .assert_eq(&shown(one, &wrong));
    let odd = r#"[[server.s.place.openapi]]
file = "shop.yaml"
classes = { creatOrder = "read" }
[[server.s.place.openapi]]
file = "nowhere.yaml"
[[server.s.place.openapi]]
file = "."
[[server.s.place.openapi]]
file = "shop.yaml"
servers = ["api.example.com"]
[[server.s.place.openapi]]
"#;
    expect![[r#"
        error: `shop.yaml` declares no `creatOrder`
         --> holdpoint.toml:5:13
          |
        5 | classes = { creatOrder = "read" }
          |             ^^^^^^^^^^
          |
          = help: did you mean `createOrder`?

        error: cannot read `/hp/nowhere.yaml`: No such file or directory (os error 2)
         --> holdpoint.toml:7:8
          |
        7 | file = "nowhere.yaml"
          |        ^^^^^^^^^^^^^^

        error: `/hp/.` is no file
         --> holdpoint.toml:9:8
          |
        9 | file = "."
          |        ^^^

        error: `api.example.com` is no address of a server
          --> holdpoint.toml:12:12
           |
        12 | servers = ["api.example.com"]
           |            ^^^^^^^^^^^^^^^^^
           |
           = help: for example `https://api.example.com/v1`

        error: the key `file` is missing
          --> holdpoint.toml:13:1
           |
        13 | [[server.s.place.openapi]]
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
           = help: add `file = "openapi.yaml"`

        5 faults, 0 warnings
    "#]]
    .assert_eq(&shown(odd, DOCUMENT));
}

#[test]
fn a_changed_document_is_another_configuration() {
    let folder = TempDir::new().unwrap();
    let digest = |document: &str| {
        std::fs::write(folder.path().join("shop.yaml"), document).unwrap();
        let text = "[server.s]\ncommand = [\"s\"]\nplace = { openapi = [{ file = \"shop.yaml\" \
                    }] }\ntool.call.effects = [{ family = \"http\", url = \"/url\" }]\n";
        let file = folder.path().join("holdpoint.toml");
        check("holdpoint.toml", &file, text).0.unwrap().settings.digest()
    };
    let one = digest(DOCUMENT);
    assert_eq!(one, digest(DOCUMENT));
    assert_ne!(one, digest(&DOCUMENT.replace("post", "delete")));
}
