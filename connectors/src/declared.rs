//! Schemas of tables against declared ones. Types are compared by class: systems widen.

use std::sync::Arc;

use datafusion::arrow::datatypes::TimeUnit::Nanosecond;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::error::{Error, Result};
use crate::exact;

/// The schema called `contract`, which is what `table.create` says, among `known`, followed by the
/// columns of `more` that it does not have; none if nothing is to be created.
pub(crate) fn asked_for(
    known: &[(&'static str, SchemaRef)],
    contract: Option<&str>,
    more: &Schema,
) -> Result<Option<SchemaRef>> {
    let Some(contract) = contract else {
        return Ok(None);
    };
    let Some((_, schema)) = known.iter().find(|(name, _)| *name == contract) else {
        let valid: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        return Err(Error::unknown("value of table.create", contract, &valid));
    };
    Ok(Some(with_columns(schema, more)))
}

/// `base` followed by the columns of `more` that it does not have.
fn with_columns(base: &SchemaRef, more: &Schema) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = base.fields().iter().cloned().collect();
    for field in more.fields() {
        if base.column_with_name(field.name()).is_none() {
            fields.push(Arc::clone(field));
        }
    }
    Arc::new(Schema::new(fields))
}

/// An error that lists how the table at `location` differs from what was declared.
pub(crate) fn check_same(declared: &Schema, found: &Schema, location: &str) -> Result<()> {
    refuse(differences(declared, found, true, false), location, "")
}

/// The same for a table whose columns are reached by name, in any order; those that it lacks are no
/// difference if it may `evolve`.
pub(crate) fn check_columns(
    declared: &Schema,
    found: &Schema,
    location: &str,
    evolve: bool,
) -> Result<()> {
    let lacks = |f: &Arc<Field>| found.column_with_name(f.name()).is_none();
    let hint = match !evolve && declared.fields().iter().any(lacks) {
        true => ", or say 'table.evolve' 'add_columns' so that INSERT adds those that are missing",
        false => "",
    };
    refuse(differences(declared, found, false, evolve), location, hint)
}

/// An error if a number of the table at `location` may not fit into the type that was declared for it;
/// a wider one than the table's is no promise that is broken.
pub(crate) fn check_holds(declared: &Schema, found: &Schema, location: &str) -> Result<()> {
    for field in declared.fields() {
        let Ok(own) = found.field_with_name(field.name()) else {
            continue;
        };
        let (wanted, has) = (field.data_type(), own.data_type());
        let alike = wanted.is_signed_integer() && has.is_signed_integer()
            || wanted.is_floating() && has.is_floating();
        if alike && wanted.primitive_width() < has.primitive_width() {
            return Err(Error::invalid(format!(
                "column {} of the table at '{location}' is {has}, which {wanted}, as declared, may \
                 not hold; declare it as {has}, or leave the columns out",
                field.name()
            )));
        }
    }
    Ok(())
}

fn differences(declared: &Schema, found: &Schema, ordered: bool, evolve: bool) -> Vec<String> {
    let mut differences = vec![];
    for (i, field) in declared.fields().iter().enumerate() {
        match found.column_with_name(field.name()) {
            None if evolve => {}
            None => differences.push(format!("{} is missing", field.name())),
            Some((at, _)) if at != i && ordered => {
                differences.push(format!(
                    "{} is column {}, not {}",
                    field.name(),
                    at + 1,
                    i + 1
                ));
            }
            Some((_, other)) if class(field.data_type()) != class(other.data_type()) => {
                differences.push(format!(
                    "{} has type {}, not {}",
                    field.name(),
                    other.data_type(),
                    field.data_type()
                ));
            }
            Some(_) => {}
        }
    }
    for field in found.fields() {
        if declared.column_with_name(field.name()).is_none() {
            differences.push(format!("{} is not declared", field.name()));
        }
    }
    differences
}

fn refuse(differences: Vec<String>, location: &str, hint: &str) -> Result<()> {
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the table at '{location}' has other columns than declared: {}; choose another \
             location or declare the columns that it has{hint}",
            differences.join("; ")
        ))),
    }
}

/// The input of an INSERT into a table whose sink does not cast, with the column types of the table:
/// SQL casts before it comes here, a program's `DataFrame::write_table` does not. Texts and bytes are
/// laid out as the table has them; another type is an error, because what a cast would lose is not
/// known here.
///
/// # Errors
/// Another number of columns, a column of another type, columns that are probably swapped.
pub fn fitted(input: Arc<dyn ExecutionPlan>, schema: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
    check_column_order(&input, schema)?;
    let given = input.schema();
    check_width(&given, schema)?;
    let mut columns = vec![];
    let mut differs = false;
    for (i, (from, to)) in given.fields().iter().zip(schema.fields()).enumerate() {
        let (has, wants) = (from.data_type(), to.data_type());
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(from.name(), i));
        let same = has == wants;
        // Within lists and structs texts differ in layout too, which the cast sorts out.
        let fits = plain_type(has) == plain_type(wants)
            || *has == DataType::Null
            || (has.is_nested() && wants.is_nested());
        if !fits {
            return Err(Error::invalid(format!(
                "column {} of the table is {wants}, and the rows have {has} there; cast it",
                to.name()
            )));
        }
        differs |= !same;
        let value = match same {
            true => column,
            false => Arc::new(CastExpr::new(column, wants.clone(), None)),
        };
        columns.push(ProjectionExpr::new(value, to.name().clone()));
    }
    match differs {
        false => Ok(input),
        true => {
            let projected = ProjectionExec::try_new(columns, input)
                .map_err(|e| Error::while_doing("laying rows out as the table has them", e))?;
            Ok(Arc::new(projected))
        }
    }
}

/// Whether the rows of `input` may go into a table of ours with `schema`, which its sink casts and
/// looks at one by one: as many columns, in the table's order, of types that its own can hold.
///
/// # Errors
/// Before any row is made.
pub(crate) fn check_input(input: &Arc<dyn ExecutionPlan>, schema: &SchemaRef) -> Result<()> {
    check_column_order(input, schema)?;
    let given = input.schema();
    check_width(&given, schema)?;
    for (from, to) in given.fields().iter().zip(schema.fields()) {
        let (has, wants) = (from.data_type(), to.data_type());
        if !exact::takes(wants, has) {
            return Err(Error::invalid(format!(
                "column {} of the table is {wants}, and the rows have {has} there; say in the \
                 SELECT what becomes of its values, with CAST",
                to.name()
            )));
        }
    }
    Ok(())
}

fn check_width(given: &Schema, schema: &Schema) -> Result<()> {
    if given.fields().len() == schema.fields().len() {
        return Ok(());
    }
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    Err(Error::invalid(format!(
        "INSERT goes by position, and the rows have {} columns where the table has {}: {}",
        given.fields().len(),
        names.len(),
        names.join(", ")
    )))
}

/// INSERT goes by position. A column of the query that has the name of another column of the
/// table than the one it would land in is almost certainly a mistake.
pub(crate) fn check_column_order(input: &Arc<dyn ExecutionPlan>, schema: &SchemaRef) -> Result<()> {
    let Some(projection) = input.downcast_ref::<ProjectionExec>() else {
        return Ok(());
    };
    let mut swapped = vec![];
    for (i, projected) in projection.expr().iter().enumerate() {
        let mut expr = &projected.expr;
        while let Some(cast) = expr.downcast_ref::<CastExpr>() {
            expr = cast.expr();
        }
        let Some(column) = expr.downcast_ref::<Column>() else {
            continue;
        };
        let Some(target) = schema.fields().get(i).map(|field| field.name()) else {
            break;
        };
        if column.name() != target && schema.column_with_name(column.name()).is_some() {
            swapped.push(format!("{} would go into {target}", column.name()));
        }
    }
    match swapped.is_empty() {
        true => Ok(()),
        false => {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Err(Error::invalid(format!(
                "INSERT goes by position, and {}; select the columns in the table's order: {}",
                swapped.join(", "),
                names.join(", ")
            )))
        }
    }
}

/// The type without its layout.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Text,
    Integer,
    Float,
    Other(DataType),
}

/// True if the two types hold the same kind of value.
pub(crate) fn same_class(a: &DataType, b: &DataType) -> bool {
    class(a) == class(b)
}

fn class(data_type: &DataType) -> Class {
    match plain_type(data_type) {
        DataType::Utf8 => Class::Text,
        other if other.is_integer() => Class::Integer,
        DataType::Decimal128(_, 0) => Class::Integer, // NUMBER(38, 0) is what some make of INTEGER
        other if other.is_floating() => Class::Float,
        DataType::Timestamp(_, zone) => {
            let utc = zone.as_deref().is_some_and(exact::is_utc);
            let zone = if utc { Some("UTC".into()) } else { zone };
            Class::Other(DataType::Timestamp(Nanosecond, zone))
        }
        other => Class::Other(within(&other)),
    }
}

/// A nested type by the classes of what is within it; what lists call their items does not matter.
fn within(data_type: &DataType) -> DataType {
    use DataType::*;
    let inner = |field: &Field, name: &str| {
        let kind = match class(field.data_type()) {
            Class::Text => Utf8,
            Class::Integer => Int64,
            Class::Float => Float64,
            Class::Other(other) => other,
        };
        Arc::new(Field::new(name, kind, true))
    };
    match data_type {
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            List(inner(item, "item"))
        }
        Struct(fields) => Struct(fields.iter().map(|f| inner(f, f.name())).collect()),
        Map(entries, _) => match entries.data_type() {
            Struct(pair) => {
                let names = ["key", "value"].iter().zip(pair);
                let pair = Struct(names.map(|(name, f)| inner(f, name)).collect());
                Map(Arc::new(Field::new("entries", pair, false)), false)
            }
            _ => data_type.clone(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_takes_the_declared_columns_that_it_lacks() {
        let column = |name: &str| Field::new(name, DataType::Utf8, true);
        let of = |names: &[&str]| Schema::new(names.iter().map(|n| column(n)).collect::<Vec<_>>());
        let known = [
            ("one", Arc::new(of(&["x"]))),
            ("two", Arc::new(of(&["x", "y"]))),
        ];
        let more = of(&["y", "z"]);
        let made = |name| asked_for(&known, name, &more);
        assert_eq!(made(None).unwrap(), None);
        for (name, columns) in [("one", ["x", "y", "z"]), ("two", ["x", "y", "z"])] {
            assert_eq!(*made(Some(name)).unwrap().unwrap(), of(&columns), "{name}");
        }
        let text = made(Some("three")).unwrap_err().to_string();
        assert!(
            text.contains("table.create") && text.contains("one, two"),
            "{text}"
        );
    }

    #[test]
    fn nested_types_are_compared_by_what_is_within() {
        use DataType::*;
        let list = |name: &str, t| List(Arc::new(Field::new(name, t, true)));
        let of = |name: &str, t| Struct(vec![Field::new(name, t, false)].into());
        assert!(same_class(&list("item", Utf8View), &list("element", Utf8)));
        assert!(same_class(&list("item", Int32), &list("element", Int64)));
        assert!(same_class(
            &of("a", list("item", Utf8)),
            &of("a", list("element", Utf8View))
        ));
        assert!(!same_class(&list("item", Utf8), &list("item", Int64)));
        assert!(!same_class(&of("a", Int64), &of("b", Int64)));
        assert!(!same_class(&list("item", Int64), &Int64));
    }

    #[test]
    fn differences_are_listed() {
        let a = Schema::new(vec![
            Field::new("x", DataType::Utf8View, true),
            Field::new("y", DataType::Int32, true),
        ]);
        let same = Schema::new(vec![
            Field::new("x", DataType::Utf8, true),
            Field::new("y", DataType::Int64, true),
        ]);
        assert!(check_same(&a, &same, "t").is_ok());
        let other = Schema::new(vec![
            Field::new("y", DataType::Utf8, true),
            Field::new("z", DataType::Utf8, true),
        ]);
        let text = check_same(&a, &other, "t").unwrap_err().to_string();
        for part in ["x is missing", "y is column 1, not 2", "z is not declared"] {
            assert!(text.contains(part), "{text}");
        }
        let swapped = Schema::new(vec![
            Field::new("y", DataType::Int32, true),
            Field::new("x", DataType::Utf8, true),
        ]);
        assert!(check_columns(&a, &swapped, "t", false).is_ok());
        let less = Schema::new(vec![Field::new("y", DataType::Int32, true)]);
        assert!(check_columns(&a, &less, "t", true).is_ok());
        let text = check_columns(&a, &less, "t", false)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("x is missing") && text.contains("table.evolve"),
            "{text}"
        );
    }
}
