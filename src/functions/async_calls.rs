//! Asynchronous functions where a plan cannot wait for them: their calls move into projections.
//!
//! DataFusion awaits a call in a projection or a filter, and there only if its arguments hold no
//! other call. This rule moves every other one, inner ones first, into a projection below: of
//! sort keys, groups, aggregates, windows, partitionings and conditions of joins. It comes last in
//! each pass of the optimizer, because other rules put projections together again. What cannot be
//! moved is refused while planning.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::error::{Error, ErrorKind};

/// Begins the names of the columns that hold results.
const NAME: &str = "__awaited";

/// Adds the rule to `ctx`.
pub(crate) fn register(ctx: &SessionContext) {
    ctx.add_optimizer_rule(Arc::new(MoveAsyncCalls));
}

#[derive(Debug)]
struct MoveAsyncCalls;

impl OptimizerRule for MoveAsyncCalls {
    fn name(&self) -> &str {
        "move_async_calls"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up_with_subqueries(|node| move_calls(node, config.alias_generator()))
    }
}

fn move_calls(node: LogicalPlan, names: &AliasGenerator) -> Result<Transformed<LogicalPlan>> {
    // Calls within calls that the node itself may hold.
    let depth = match &node {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => 1,
        _ => 0,
    };
    let mut deepest = 0;
    node.apply_expressions(|expr| {
        deepest = deepest.max(depth_of(expr));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if deepest <= depth {
        return Ok(Transformed::no(node));
    }
    let exprs = node.expressions();
    let moved = match node {
        LogicalPlan::Join(join) => in_join(join, names)?,
        node @ (LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Repartition(_)) => below(&node, exprs, depth, names)?,
        node => return Err(refused(&exprs, place(&node))),
    };
    Ok(Transformed::yes(moved))
}

/// `node` over a projection that holds the calls of `exprs`, its expressions.
fn below(
    node: &LogicalPlan,
    mut exprs: Vec<Expr>,
    depth: usize,
    names: &AliasGenerator,
) -> Result<LogicalPlan> {
    let mut added = HashSet::new();
    let mut inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
    while exprs.iter().any(|e| depth_of(e) > depth) {
        let mut calls = Calls::new(names);
        exprs = replace_all(exprs, |call| calls.column(call))?;
        inputs = inputs
            .into_iter()
            .map(|input| calls.project(input, &mut added))
            .collect::<Result<_>>()?;
    }
    // These put out what their expressions say, the others the columns of the input, too.
    if matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
        added.clear();
    }
    restored(node.with_new_exprs(exprs, inputs)?, &added, node.schema())
}

/// A join whose conditions hold calls: each goes to the side that its arguments come from. One that
/// takes columns of both sides can be waited for only after the join.
fn in_join(join: Join, names: &AliasGenerator) -> Result<LogicalPlan> {
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let schema = Arc::clone(&join.schema);
    let parts = join.filter.clone().map(split_conjunction_owned);
    let (during, after): (Vec<Expr>, Vec<Expr>) = parts
        .unwrap_or_default()
        .into_iter()
        .partition(|part| !has_call_over_both(part, left_schema, right_schema));
    if !after.is_empty() && join.join_type != JoinType::Inner {
        let place = format!(
            "with columns of both sides in the condition of a {} JOIN",
            join.join_type.to_string().to_uppercase()
        );
        return Err(refused(&after, &place));
    }
    let mut on: Vec<Expr> = join
        .on
        .iter()
        .flat_map(|(left, right)| [left.clone(), right.clone()])
        .collect();
    let mut filter: Vec<Expr> = conjunction(during).into_iter().collect();
    let (mut left, mut right) = ((*join.left).clone(), (*join.right).clone());
    let mut added = HashSet::new();
    while on.iter().chain(&filter).any(|e| depth_of(e) > 0) {
        let (mut of_left, mut of_right) = (Calls::new(names), Calls::new(names));
        let right_columns = Arc::clone(right.schema());
        on = on
            .into_iter()
            .enumerate()
            .map(|(i, expr)| match i % 2 {
                0 => replace(expr, &mut |call| of_left.column(call)),
                _ => replace(expr, &mut |call| of_right.column(call)),
            })
            .collect::<Result<_>>()?;
        filter = replace_all(filter, |call| match uses(&call, &right_columns) {
            true => of_right.column(call),
            false => of_left.column(call),
        })?;
        left = of_left.project(left, &mut added)?;
        right = of_right.project(right, &mut added)?;
    }
    on.extend(filter);
    let plan = LogicalPlan::Join(join).with_new_exprs(on, vec![left, right])?;
    let plan = restored(plan, &added, &schema)?;
    match conjunction(after) {
        None => Ok(plan),
        Some(after) => {
            let filter = LogicalPlan::Filter(Filter::try_new(after, Arc::new(plan))?);
            Ok(move_calls(filter, names)?.data)
        }
    }
}

/// Calls on their way into a projection, with the names of their columns.
struct Calls<'a> {
    names: &'a AliasGenerator,
    found: Vec<(Expr, String)>,
}

impl<'a> Calls<'a> {
    fn new(names: &'a AliasGenerator) -> Self {
        Self {
            names,
            found: vec![],
        }
    }

    /// The column that will hold `call`; the same for the same call, so that a group stays one.
    fn column(&mut self, call: Expr) -> Expr {
        let known = self.found.iter().find(|(known, _)| *known == call);
        let name = match known {
            Some((_, name)) => name.clone(),
            None => {
                let name = self.names.next(NAME);
                self.found.push((call, name.clone()));
                name
            }
        };
        Expr::Column(Column::from_name(name))
    }

    /// `input` with the calls as further columns, whose names go into `added`.
    fn project(&self, input: LogicalPlan, added: &mut HashSet<String>) -> Result<LogicalPlan> {
        if self.found.is_empty() {
            return Ok(input);
        }
        let mut exprs: Vec<Expr> = input
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        for (call, name) in &self.found {
            added.insert(name.clone());
            exprs.push(call.clone().alias(name));
        }
        Ok(LogicalPlan::Projection(Projection::try_new(
            exprs,
            Arc::new(input),
        )?))
    }
}

/// `expr` with its innermost calls replaced.
fn replace(expr: Expr, by: &mut dyn FnMut(Expr) -> Expr) -> Result<Expr> {
    let replaced = expr.transform_down(|expr| {
        if matches!(expr, Expr::Lambda(_)) && depth_of(&expr) > 0 {
            return Err(refused(&[expr], "in a lambda"));
        }
        let innermost = call(&expr).is_some_and(|f| f.args.iter().all(|a| depth_of(a) == 0));
        if !innermost {
            return Ok(Transformed::no(expr));
        }
        if expr.contains_outer() {
            return Err(refused(&[expr], "with a column of the query around it"));
        }
        Ok(Transformed::new(by(expr), true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

fn replace_all(exprs: Vec<Expr>, mut by: impl FnMut(Expr) -> Expr) -> Result<Vec<Expr>> {
    exprs
        .into_iter()
        .map(|expr| replace(expr, &mut by))
        .collect()
}

/// `plan` without the columns `added`, under the names that `schema` has.
fn restored(plan: LogicalPlan, added: &HashSet<String>, schema: &DFSchema) -> Result<LogicalPlan> {
    let own = plan.schema().columns().into_iter();
    let own: Vec<Column> = own.filter(|c| !added.contains(&c.name)).collect();
    let wanted = schema.columns();
    if own == wanted && added.is_empty() {
        return Ok(plan);
    }
    let exprs = own.into_iter().zip(wanted).map(|(own, wanted)| {
        let same = own == wanted;
        let column = Expr::Column(own);
        match same {
            true => column,
            false => column.alias_qualified(wanted.relation, wanted.name),
        }
    });
    let exprs = exprs.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(
        exprs,
        Arc::new(plan),
    )?))
}

/// The call of an asynchronous function that `expr` is.
fn call(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::ScalarFunction(function) if function.func.as_async().is_some() => Some(function),
        _ => None,
    }
}

/// Most calls of asynchronous functions within each other in `expr`.
fn depth_of(expr: &Expr) -> usize {
    let mut within = 0;
    // The function never fails.
    expr.apply_children(|child| {
        within = within.max(depth_of(child));
        Ok(TreeNodeRecursion::Continue)
    })
    .ok();
    within + usize::from(call(expr).is_some())
}

fn uses(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().iter().any(|c| schema.has_column(c))
}

/// True if one call in `expr` takes columns of both sides.
fn has_call_over_both(expr: &Expr, left: &DFSchema, right: &DFSchema) -> bool {
    let over_both = |e: &Expr| Ok(call(e).is_some() && uses(e, left) && uses(e, right));
    expr.exists(over_both).unwrap_or(true)
}

/// Where a node has its expressions, as an error says it.
fn place(node: &LogicalPlan) -> &'static str {
    match node {
        LogicalPlan::Values(_) => "in VALUES",
        LogicalPlan::Limit(_) => "in LIMIT or OFFSET",
        LogicalPlan::TableScan(_) => "in the filter of a table's scan",
        LogicalPlan::Dml(_) => "in this statement",
        _ => "here",
    }
}

fn refused(exprs: &[Expr], place: &str) -> DataFusionError {
    let mut name = String::from("an asynchronous function");
    for expr in exprs {
        expr.apply(|e| {
            if let Some(function) = call(e) {
                name = format!("{}(...)", function.name());
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .ok();
    }
    let message = format!(
        "{name} cannot be called {place}; call it in the SELECT list of a subquery and use its \
         column: (SELECT *, {name} AS answer FROM ...)"
    );
    Error::new(ErrorKind::Unsupported, message).into()
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use datafusion::arrow::array::{ArrayRef, AsArray, StringArray};
    use datafusion::arrow::datatypes::DataType;
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
    use datafusion::logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
    };

    use super::*;

    /// `say(a, b)`: "a:b", after a while.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Say(Signature);

    impl ScalarUDFImpl for Say {
        fn name(&self) -> &str {
            "say"
        }

        fn signature(&self) -> &Signature {
            &self.0
        }

        fn return_type(&self, _: &[DataType]) -> Result<DataType> {
            Ok(DataType::Utf8)
        }

        fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
            Err(DataFusionError::Internal("say is asynchronous".into()))
        }
    }

    #[async_trait]
    impl AsyncScalarUDFImpl for Say {
        async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
            tokio::task::yield_now().await;
            let rows = args.number_rows;
            let arrays: Vec<ArrayRef> = args
                .args
                .into_iter()
                .map(|a| a.into_array(rows))
                .collect::<Result<_>>()?;
            let (a, b) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
            let said: StringArray = a
                .iter()
                .zip(b)
                .map(|(a, b)| Some(format!("{}:{}", a?, b?)))
                .collect();
            Ok(ColumnarValue::Array(Arc::new(said)))
        }
    }

    async fn context() -> SessionContext {
        let ctx = SessionContext::new();
        let types = vec![DataType::Utf8, DataType::Utf8];
        let say = Say(Signature::exact(types, Volatility::Volatile));
        ctx.register_udf(AsyncScalarUDF::new(Arc::new(say)).into_scalar_udf());
        register(&ctx);
        for sql in [
            "CREATE TABLE t AS VALUES ('b', 1), ('a', 2), ('c', 3), ('a', 4), (NULL, 5)",
            "CREATE TABLE u AS VALUES ('x:a', 10), ('x:c', 20), ('x:z', 30)",
            "CREATE TABLE none AS SELECT * FROM t WHERE false",
        ] {
            ctx.sql(sql).await.unwrap().collect().await.unwrap();
        }
        ctx
    }

    /// The rows of `sql`, each with its cells joined by a blank.
    async fn rows(ctx: &SessionContext, sql: &str) -> Result<Vec<String>> {
        let batches = ctx.sql(sql).await?.collect().await?;
        let table = pretty_format_batches(&batches)?.to_string();
        let lines = table.lines().filter(|l| l.starts_with('|')).skip(1);
        Ok(lines
            .map(|l| {
                l.split_whitespace()
                    .filter(|c| *c != "|")
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect())
    }

    #[tokio::test]
    async fn calls_are_awaited_wherever_they_stand() {
        let ctx = context().await;
        let cases: &[(&str, &[&str])] = &[
            // constant, column and mixed arguments
            (
                "SELECT say('x', 'y') FROM range(0, 3)",
                &["x:y", "x:y", "x:y"],
            ),
            (
                "SELECT value, say('x', 'y') FROM range(0, 2)",
                &["0 x:y", "1 x:y"],
            ),
            (
                "SELECT say('x', column1) AS s, say(column1, column1) FROM t WHERE column2 < 3 ORDER BY column2",
                &["x:b b:b", "x:a a:a"],
            ),
            ("SELECT say('x', 'y'), count(*) FROM t", &["x:y 5"]),
            // no rows
            ("SELECT say('x', column1) FROM none", &[]),
            (
                "SELECT column2, say('x', 'y') FROM none ORDER BY say('x', column1)",
                &[],
            ),
            ("SELECT count(say('x', column1)) FROM none", &["0"]),
            // ORDER BY
            (
                "SELECT column2 FROM t WHERE column1 IS NOT NULL ORDER BY say('x', column1) DESC, column2",
                &["3", "1", "2", "4"],
            ),
            (
                "SELECT column1 FROM t ORDER BY say('x', column1) NULLS LAST, column2 DESC LIMIT 1",
                &["a"],
            ),
            // GROUP BY, HAVING, DISTINCT, aggregates
            (
                "SELECT say('x', column1) AS s, sum(column2) AS n FROM t GROUP BY say('x', column1) ORDER BY n",
                &["x:b 1", "x:c 3", "5", "x:a 6"],
            ),
            (
                "SELECT sum(column2) FROM t GROUP BY say('x', column1) HAVING say('x', column1) = 'x:a'",
                &["6"],
            ),
            (
                "SELECT say('x', column1) AS s, count(*) FROM t GROUP BY ROLLUP(say('x', column1)) HAVING count(*) > 1 ORDER BY 2",
                &["x:a 2", "5"],
            ),
            ("SELECT count(DISTINCT say('x', column1)) FROM t", &["3"]),
            (
                "SELECT DISTINCT say('x', column1) AS s FROM t ORDER BY s LIMIT 2",
                &["x:a", "x:b"],
            ),
            (
                "SELECT max(say('x', column1)), min(say('y', column1)), count(*) FILTER (WHERE say('x', column1) = 'x:a') FROM t",
                &["x:c y:a 2"],
            ),
            (
                "SELECT first_value(column2 ORDER BY say('x', column1) DESC) FROM t WHERE column1 IS NOT NULL",
                &["3"],
            ),
            // nested
            (
                "SELECT say('x', say('y', 'z')) FROM range(0, 2)",
                &["x:y:z", "x:y:z"],
            ),
            (
                "SELECT column2 FROM t WHERE say('x', say('y', column1)) = 'x:y:c' ",
                &["3"],
            ),
            (
                "SELECT say(say('x', column1), say('y', say('z', column1))) AS s FROM t ORDER BY say('w', say('x', column1)), column2 LIMIT 1",
                &["x:a:y:z:a"],
            ),
            (
                "SELECT upper(say('x', lower(say('y', column1)))) AS s, count(*) FROM t WHERE column1 = 'a' GROUP BY 1",
                &["X:Y:A 2"],
            ),
            (
                "SELECT s, say('w', s) FROM (SELECT say('x', column1) AS s FROM t WHERE column2 = 1)",
                &["x:b w:x:b"],
            ),
            // windows
            (
                "SELECT column2, row_number() OVER (ORDER BY say('x', column1), column2) AS n FROM t WHERE column1 IS NOT NULL ORDER BY n",
                &["2 1", "4 2", "1 3", "3 4"],
            ),
            (
                "SELECT sum(column2) OVER (PARTITION BY say('x', column1)) AS n FROM t ORDER BY n",
                &["1", "3", "5", "6", "6"],
            ),
            // joins
            (
                "SELECT t.column2, u.column2 FROM t JOIN u ON say('x', t.column1) = u.column1 ORDER BY 1",
                &["2 10", "3 20", "4 10"],
            ),
            (
                "SELECT t.column2, u.column2 FROM t LEFT JOIN u ON say('x', t.column1) = u.column1 ORDER BY 1",
                &["1", "2 10", "3 20", "4 10", "5"],
            ),
            (
                "SELECT t.column2, u.column2 FROM t JOIN u ON say(t.column1, u.column1) = 'a:x:z' ORDER BY 1",
                &["2 30", "4 30"],
            ),
            (
                "SELECT t.column2 FROM t JOIN u ON t.column2 * 10 = u.column2 AND say(say('x', t.column1), u.column1) = 'x:a:x:c'",
                &["2"],
            ),
            (
                "SELECT column2 FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.column1 = say('x', t.column1)) ORDER BY 1",
                &["2", "3", "4"],
            ),
            (
                "SELECT column2 FROM t WHERE say('x', column1) IN (SELECT column1 FROM u) ORDER BY 1",
                &["2", "3", "4"],
            ),
            (
                "SELECT (SELECT max(say('x', column1)) FROM t) AS m FROM range(0, 2)",
                &["x:c", "x:c"],
            ),
            (
                "SELECT say('x', 'y') UNION ALL SELECT say('z', column1) FROM t WHERE column2 = 2 ORDER BY 1",
                &["x:y", "z:a"],
            ),
            (
                "SELECT CASE WHEN column2 = 1 THEN say('x', column1) ELSE 'no' END AS s FROM t WHERE column2 < 3 ORDER BY column2",
                &["x:b", "no"],
            ),
        ];
        for (sql, expected) in cases {
            let found = rows(&ctx, sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert_eq!(found, *expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn calls_are_stored_once_per_row() {
        let ctx = context().await;
        for (sql, expected) in [
            (
                "CREATE TABLE o AS SELECT say('x', 'y') AS s FROM range(0, 5)",
                "5",
            ),
            (
                "INSERT INTO o SELECT say('x', say('y', column1)) FROM t",
                "10",
            ),
        ] {
            ctx.sql(sql).await.unwrap().collect().await.unwrap();
            assert_eq!(
                rows(&ctx, "SELECT count(*) FROM o").await.unwrap(),
                [expected]
            );
        }
    }

    #[tokio::test]
    async fn what_cannot_be_awaited_is_refused_while_planning() {
        let ctx = context().await;
        for (sql, part) in [
            ("VALUES (say('x', 'y')), ('z')", "in VALUES"),
            (
                "SELECT * FROM t LEFT JOIN u ON say(t.column1, u.column1) = 'x'",
                "columns of both sides in the condition of a LEFT JOIN",
            ),
        ] {
            let frame = ctx.sql(sql).await.unwrap();
            let error = frame.create_physical_plan().await.unwrap_err().to_string();
            assert!(
                error.contains("say(...)") && error.contains(part),
                "{sql}: {error}"
            );
        }
    }
}
