/** Topics of live messages: who listens to what. */

/** What one user's pages are told: notifications, their tips and uploads. Nobody else may listen. */
export const userTopic = (userId: string) => `user:${userId}`;

/** What is told of an article to all who have it open. */
export const articleTopic = (articleId: string) => `article:${articleId}`;
