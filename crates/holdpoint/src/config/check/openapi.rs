//! Reads the OpenAPI documents that the configuration names, and puts their faults where they are.
//! Must not read anything else, nor through what is no plain file.

use super::Checker;
use crate::config::fault::{Diagnostic, Severity, nearest, span_at};
use crate::config::raw::{At, RawOpenApi, RawPlace};
use crate::config::read_text_within;
use holdpoint_effects::{OPENAPI_BYTES_MAX, OpenApiFault, Operation, Operations};
use std::path::Path;

// === impl Checker ===

impl Checker<'_> {
    /// The operations of all documents of a server.
    pub(super) fn operations_of(&mut self, place: &RawPlace) -> Operations {
        let mut all = Vec::new();
        for raw in &place.openapi {
            all.extend(self.openapi(raw).unwrap_or_default());
        }
        Operations::new(all)
    }

    fn openapi(&mut self, raw: &At<RawOpenApi>) -> Option<Vec<Operation>> {
        let RawOpenApi { file, servers, classes } = raw.get();
        let Some(file) = file else {
            self.missing(&raw.span(), "file", "\"openapi.yaml\"");
            return None;
        };
        for server in servers {
            if holdpoint_effects::server_url(server.get()).is_none() {
                let message = format!("`{}` is no address of a server", server.get());
                let next = "for example `https://api.example.com/v1`".to_owned();
                self.fault(server.span(), message, next);
                return None;
            }
        }
        let path = self.path(Some(file))?;
        let text = self.document(file, &path)?;
        let servers: Vec<_> = servers.iter().map(|server| server.get().clone()).collect();
        let mut operations = match holdpoint_effects::openapi(&text, &servers) {
            Ok(operations) => operations,
            Err(faults) => {
                self.faults_of_document(&path, text, faults);
                return None;
            }
        };
        if operations.is_empty() {
            let message = format!("`{}` declares no operation", file.get());
            self.warn(file.span(), message, None);
        }
        for (name, class) in classes {
            let mut found = false;
            for operation in operations.iter_mut().filter(|one| one.is_called(name.get())) {
                *operation = operation.clone().classed((*class).into());
                found = true;
            }
            if !found {
                self.unknown_operation(name, file, &operations);
            }
        }
        Some(operations)
    }

    fn document(&mut self, file: &At<String>, path: &Path) -> Option<String> {
        let most = u64::try_from(OPENAPI_BYTES_MAX).unwrap_or(u64::MAX);
        // What is no plain file may never end, or never begin.
        let read = match path.metadata() {
            Ok(found) if !found.is_file() => Err(format!("`{}` is no file", path.display())),
            Ok(_) => read_text_within(path, most).map_err(|error| error.to_string()),
            Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
        };
        match read {
            Ok(text) => Some(text),
            Err(message) => {
                self.fault(file.span(), message, None);
                None
            }
        }
    }

    fn faults_of_document(&mut self, path: &Path, text: String, faults: Vec<OpenApiFault>) {
        let name = path.display().to_string();
        for OpenApiFault { line, column, message } in faults {
            self.elsewhere.push(Diagnostic {
                severity: Severity::Fault,
                file: name.clone(),
                span: span_at(&text, line, column),
                message,
                suggestion: None,
            });
        }
        self.documents.push((name, text));
    }

    fn unknown_operation(&mut self, name: &At<String>, file: &At<String>, known: &[Operation]) {
        let names: Vec<_> = known.iter().map(Operation::name).collect();
        let near = nearest(name.get(), names.iter().map(String::as_str));
        let next = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write its `operationId`, or `POST /orders/{id}`".to_owned(),
        };
        self.fault(name.span(), format!("`{}` declares no `{}`", file.get(), name.get()), next);
    }
}

#[cfg(test)]
mod tests;
