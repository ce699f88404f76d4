//! The smallest host: an axum service on PostgreSQL that heals itself. The checks build it with sqlx's default
//! features, to show that the library fits a host that was there before it.

use axum::{Router, routing::get};
use selfheal::{Heal, PgHealPool};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = PgHealPool::connect("postgres://localhost/desk").await?;
    let heal = Heal::builder().config_file("selfheal.toml")?.pool("main", &pool).start().await?;
    let now = async move || {
        let now: Result<String, _> = sqlx::query_scalar("SELECT now()::text").fetch_one(&pool).await;
        now.map_err(selfheal::http::Failure::from)
    };
    let app = Router::new().route("/api/now", get(now)).layer(heal.layer()).merge(heal.admin_router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    heal.serve(listener, app).await?;
    Ok(())
}
