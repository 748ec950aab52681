//! `now()` in microseconds, which is what tables hold of a moment.
//!
//! The library's has nanoseconds that no Delta table, and few systems, have room for: an INSERT of it
//! would be refused, because it cuts no value. Nobody asks for the nanoseconds of the present, so they
//! are not made in the first place.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::functions::datetime::now::NowFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

const NANOSECONDS: i64 = 1000;

/// Takes the place of the library's function; a host's own stays.
pub(crate) fn register(ctx: &SessionContext) {
    let library = ctx.state().scalar_functions().get("now").cloned();
    if let Some(now) = library.filter(|now| now.inner().is::<NowFunc>()) {
        ctx.register_udf(Now(now.as_ref().clone()).into());
    }
}

/// The library's function, without nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now(ScalarUDF);

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.inner().return_field_from_args(args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let updated = self.0.inner().with_updated_config(config);
        updated.map(|now| Self(now).into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.0.inner().invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let simplified = self.0.inner().simplify(args, info)?;
        Ok(match simplified {
            ExprSimplifyResult::Simplified(Expr::Literal(
                ScalarValue::TimestampNanosecond(Some(now), zone),
                metadata,
            )) => {
                let whole = now - now.rem_euclid(NANOSECONDS);
                let whole = ScalarValue::TimestampNanosecond(Some(whole), zone);
                ExprSimplifyResult::Simplified(Expr::Literal(whole, metadata))
            }
            other => other,
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.inner().documentation()
    }
}
